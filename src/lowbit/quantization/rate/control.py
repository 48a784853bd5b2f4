"""How many bits a network will take at a Lagrange multiplier, and how a pass is steered to a number of bits.

`Forecast`: the order-0 entropy of each layer's codes as GPTQ alone gives them (`passes.sensitivity`, at scales an
octave apart), less what choosing codes by their bits will save, which is the more the fewer bits per weight there are
(`saved_share`). What is left of its error is a ratio that is much the same for all layers of a network. So a pass that
has a goal learns the ratio from the layers behind it, and sets the multiplier for those ahead to what is left of the
goal. Where the layers ahead are too small to make a miss good, the layer at hand is solved again (`RateControl`).

The multiplier then differs a little from layer to layer. That costs little: where a layer's distortion is proportional
to its multiplier, and four times the multiplier takes one bit per weight less, multipliers whose logarithms deviate by
s from equal slope make the total distortion larger by s^2 / 2 at the same bits.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.quantization.passes.sensitivity import Sensitivity
from lowbit.quantization.solving.rate_distortion import row_scales

LEAST_MULTIPLIER, MOST_MULTIPLIER = 1e-26, 1e4
FIRST_RATIO = 0.93  # bits taken per bit of forecast, before any layer was solved
BIAS_BITS = 8.0
CODE_BITS = 8  # at most
PRIOR_SHARE = 0.1  # share of the whole network that the ratio from before counts like
MOST_DRIFT = 4.0  # factor by which a pass may move away from its first multiplier
RESOLVE_FROM = 1.6  # factor between multipliers from which a layer is solved again rather than left as it is


class Forecast:
    """Bits of each layer at a multiplier.

    Args:
        model: the float model.
        sensitivity: what an error at each layer's output costs, by node.
    """

    def __init__(self, model: Model, sensitivity: Mapping[str, Sensitivity]) -> None:
        self._sensitivity = sensitivity
        self._counts: dict[str, int] = {}
        self._biases: dict[str, int] = {}
        self._finest: dict[str, float] = {}  # scales
        stored: set[str] = set()  # once, if several layers share a weight
        for layer in layers(model):
            if layer.node in sensitivity:
                weight = model.weights[layer.weight]
                self._counts[layer.node] = 0 if layer.weight in stored else weight.size
                self._biases[layer.node] = 0 if layer.bias is None else model.weights[layer.bias].size
                self._finest[layer.node] = float(row_scales(layer, layer.to_matrix(weight), 0.0).min())
                stored.add(layer.weight)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every layer, in execution order."""
        return tuple(self._counts)

    def bits(self, multiplier: float, nodes: Collection[str] | None = None) -> float:
        """Bits of some layers together, of all by default, where one bit is worth `multiplier` nats."""
        chosen = self._counts if nodes is None else nodes
        return sum(self._layer_bits(node, multiplier) for node in chosen if self._counts[node])

    def weights(self, nodes: Collection[str]) -> int:
        """Number of weights in some layers."""
        return sum(self._counts[node] for node in nodes)

    def multiplier(self, bits: float, nodes: Collection[str] | None = None) -> float:
        """The multiplier at which some layers, all by default, take so many bits, or the nearest one allowed."""
        low, high = math.log(LEAST_MULTIPLIER), math.log(MOST_MULTIPLIER)
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.bits(math.exp(middle), nodes) > bits else (low, middle)
        return math.exp(high)

    def is_finest(self, multiplier: float) -> bool:
        """Whether no smaller multiplier could change anything."""
        return self.bits(multiplier) >= self.bits(LEAST_MULTIPLIER) * 0.999

    def _layer_bits(self, node: str, multiplier: float) -> float:
        known = self._sensitivity[node]
        octave = math.log2(max(known.scale * math.sqrt(multiplier / known.cost), self._finest[node]))
        octaves, rates = [math.log2(scale) for scale, _ in known.rates], [bits for _, bits in known.rates]
        bits = float(np.interp(octave, octaves, rates))
        if octave < octaves[0]:
            bits = rates[0] + (octaves[0] - octave) * self._counts[node]
        elif octave > octaves[-1]:
            bits = rates[-1] * 2.0 ** (octaves[-1] - octave)
        bits = min(bits, float(CODE_BITS * self._counts[node]))
        return bits * (1 - saved_share(bits / self._counts[node])) + BIAS_BITS * self._biases[node]


def saved_share(bits_per_weight: float) -> float:
    """Share of the bits of plain codes that codes chosen by their bits save: fitted to two networks."""
    return 0.35 * math.exp(-bits_per_weight / 1.5)


def bits_for(known: Sequence[tuple[float, int]], aim: float) -> float:
    """Bits of codes and biases to aim at, so that an archive of `aim` bytes is to be expected.

    Args:
        known: (bits aimed at, bytes) of archives that were made, the empty one among them.
        aim: at least the bytes of the empty one.
    """
    bits, taken = max((point for point in known if point[1] <= aim), key=lambda point: point[1])
    above = [point for point in known if point[1] > aim and point[0] > bits]
    if not above:
        return max(1.0, bits + 8 * (aim - taken))
    more, larger = min(above, key=lambda point: point[1])
    return max(1.0, bits + (more - bits) * (aim - taken) / (larger - taken))


@dataclass
class RateControl:
    """The multiplier of a pass on its way.

    Attributes:
        forecast: of all layers.
        multiplier: of the layer that comes next.
        goal: bits that codes and biases of the whole network shall take; None leaves the multiplier as it is.
        ratio: bits taken per bit of forecast, as far as it is known.
        taken: bits of the layers so far.
    """

    forecast: Forecast
    multiplier: float
    goal: float | None = None
    ratio: float = FIRST_RATIO
    taken: float = 0.0
    _expected: float = field(default=0.0, init=False)
    _logarithms: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._ahead = list(self.forecast.nodes)
        self._first = self.multiplier
        self._first_ratio = self.ratio
        self._prior = PRIOR_SHARE * self.forecast.bits(self.multiplier)

    @staticmethod
    def towards(forecast: Forecast, goal: float, ratio: float = FIRST_RATIO) -> "RateControl":
        """A pass that shall end at `goal` bits."""
        return RateControl(forecast, forecast.multiplier(goal / ratio), goal, ratio)

    @property
    def mean_multiplier(self) -> float:
        """Geometric mean of the multipliers so far, each layer counted by its forecast."""
        return math.exp(self._logarithms / self._expected) if self._expected > 0 else self._first

    def better_multiplier(self, node: str, bits: float) -> float | None:
        """A multiplier at which to solve a layer again, after what it took at the present one; None if it may stay.

        What is missing or too much is shared by the weights of this layer and of those ahead.
        """
        if self.goal is None:
            return None
        ahead = [name for name in self._ahead if name != node]
        missing = self.goal - self.taken - bits - self.ratio * self.forecast.bits(self.multiplier, ahead)
        per_weight = missing / max(1, self.forecast.weights([node, *ahead]))
        factor = 4.0**-per_weight
        wanted = min(max(self.multiplier * factor, self._first / MOST_DRIFT), self._first * MOST_DRIFT)
        return wanted if max(wanted / self.multiplier, self.multiplier / wanted) > RESOLVE_FROM else None

    def solved(self, node: str, bits: float) -> None:
        """Take in that a layer is solved, and what it took; sets the multiplier of the next."""
        self._ahead.remove(node)
        expected = self.forecast.bits(self.multiplier, [node])
        self._expected += expected
        self._logarithms += expected * math.log(self.multiplier)
        self.taken += bits
        self.ratio = (self.taken + self._first_ratio * self._prior) / max(self._expected + self._prior, 1e-30)
        if self.goal is not None and self._ahead and self.ratio > 0:
            wanted = self.forecast.multiplier(max(1.0, self.goal - self.taken) / self.ratio, self._ahead)
            self.multiplier = min(max(wanted, self._first / MOST_DRIFT), self._first * MOST_DRIFT)

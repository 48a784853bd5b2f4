"""How many bits a network will take at a price, and the price that makes it end at so many.

Forecast: the order-0 entropy of each layer's codes as error feedback alone gives them (`sensitivity`, at steps of an
octave), less what choosing codes by their cost will save, which is the more the fewer bits a weight has (`saved`). What
is left of its error is a ratio that is much the same for all layers of a network. So a pass that has an aim learns the
ratio from the layers behind it, and sets the price for those ahead to what is left of the aim. Where the layers ahead
are too small to make a miss good, the layer at hand is solved again (`Steering`).

The price then differs a little from layer to layer. That costs little: where layers have distortion D_l proportional to
their price, and one bit less a weight for four times the price, prices whose logarithms deviate by s from equal slope
make the total distortion larger by s^2 / 2 at the same bits.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.quantization.passes.sensitivity import Sensitivity
from lowbit.quantization.solving.rate_distortion import LARGEST

CHEAPEST, DEAREST = 1e-26, 1e4  # prices between which a dial may turn
FIRST_RATIO = 0.93  # bits that are taken for a bit that was forecast, before any layer was solved
BIAS_BITS = 8.0
CAUTIOUS = 0.1  # share of the whole network that the ratio from before counts like
STRAY = 4.0  # times or parts of the first price that a pass may go to
TURN = 1.6  # times or parts of the price for which a layer is solved again rather than leave it to those that follow


class Forecast:
    """Bits of each layer at a price.

    Args:
        model: the float model.
        sensitivity: what an error at each layer's output costs, by node.
    """

    def __init__(self, model: Model, sensitivity: Mapping[str, Sensitivity]) -> None:
        self._sensitivity = sensitivity
        self._counts: dict[str, int] = {}
        self._biases: dict[str, int] = {}
        self._finest: dict[str, float] = {}  # steps
        stored: set[str] = set()  # once, if several layers share a weight
        for layer in layers(model):
            if layer.node in sensitivity:
                weight = model.weights[layer.weight]
                self._counts[layer.node] = 0 if layer.weight in stored else weight.size
                self._biases[layer.node] = 0 if layer.bias is None else model.weights[layer.bias].size
                self._finest[layer.node] = max(float(np.abs(weight).max(initial=0.0)) / LARGEST, 1e-30)
                stored.add(layer.weight)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every layer, in execution order."""
        return tuple(self._counts)

    def bits(self, price: float, nodes: Collection[str] | None = None) -> float:
        """Bits of some layers together, of all by default, at a price of one bit in nats."""
        return sum(
            self._layer_bits(node, price) for node in (self._counts if nodes is None else nodes) if self._counts[node]
        )

    def weights(self, nodes: Collection[str]) -> int:
        """Weights of some layers."""
        return sum(self._counts[node] for node in nodes)

    def price(self, bits: float, nodes: Collection[str] | None = None) -> float:
        """The price at which some layers take so many bits, or the nearest that a dial may turn to."""
        low, high = math.log(CHEAPEST), math.log(DEAREST)
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.bits(math.exp(middle), nodes) > bits else (low, middle)
        return math.exp(high)

    def is_finest(self, price: float) -> bool:
        """Whether no smaller price could change anything."""
        return self.bits(price) >= self.bits(CHEAPEST) * 0.999

    def _layer_bits(self, node: str, price: float) -> float:
        known = self._sensitivity[node]
        octave = math.log2(max(known.step * math.sqrt(price / known.cost), self._finest[node]))
        steps, bits = [math.log2(step) for step, _ in known.rates], [bits for _, bits in known.rates]
        found = float(np.interp(octave, steps, bits))
        if octave < steps[0]:
            found = bits[0] + (steps[0] - octave) * self._counts[node]
        elif octave > steps[-1]:
            found = bits[-1] * 2.0 ** (steps[-1] - octave)
        return found * (1 - saved(found / self._counts[node])) + BIAS_BITS * self._biases[node]


def saved(bits_per_weight: float) -> float:
    """Share of the bits of plain codes that codes chosen by their cost save: fitted to two networks."""
    return 0.35 * math.exp(-bits_per_weight / 1.5)


@dataclass
class Steering:
    """The price of a pass on its way.

    Attributes:
        forecast: of all layers.
        price: of the layer that comes next.
        aim: bits that codes and biases of the whole network shall take; None leaves the price as it is.
        ratio: bits taken for a bit forecast, as far as it is known.
        taken: bits of the layers so far.
    """

    forecast: Forecast
    price: float
    aim: float | None = None
    ratio: float = FIRST_RATIO
    taken: float = 0.0
    _expected: float = field(default=0.0, init=False)
    _logarithms: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._ahead = list(self.forecast.nodes)
        self._first = self.price
        self._first_ratio = self.ratio
        self._prior = CAUTIOUS * self.forecast.bits(self.price)

    @staticmethod
    def towards(forecast: Forecast, aim: float, ratio: float = FIRST_RATIO) -> "Steering":
        """A pass that shall end at `aim` bits."""
        return Steering(forecast, forecast.price(aim / ratio), aim, ratio)

    @property
    def mean_price(self) -> float:
        """Geometric mean of the prices so far, each layer counted by its forecast."""
        return math.exp(self._logarithms / self._expected) if self._expected > 0 else self._first

    def better_price(self, node: str, bits: float) -> float | None:
        """A price at which to solve a layer again, after what it took at the present one; None if it may stay.

        What is missing or too much is shared by the weights of this layer and of those ahead.
        """
        if self.aim is None:
            return None
        ahead = [name for name in self._ahead if name != node]
        missing = self.aim - self.taken - bits - self.ratio * self.forecast.bits(self.price, ahead)
        each = missing / max(1, self.forecast.weights([node, *ahead]))
        factor = 4.0**-each
        wanted = min(max(self.price * factor, self._first / STRAY), self._first * STRAY)
        return wanted if max(wanted / self.price, self.price / wanted) > TURN else None

    def passed(self, node: str, bits: float) -> None:
        """Take in that a layer is solved, and what it took; sets the price of the next."""
        self._ahead.remove(node)
        expected = self.forecast.bits(self.price, [node])
        self._expected += expected
        self._logarithms += expected * math.log(self.price)
        self.taken += bits
        self.ratio = (self.taken + self._first_ratio * self._prior) / max(self._expected + self._prior, 1e-30)
        if self.aim is not None and self._ahead and self.ratio > 0:
            wanted = self.forecast.price(max(1.0, self.aim - self.taken) / self.ratio, self._ahead)
            self.price = min(max(wanted, self._first / STRAY), self._first * STRAY)

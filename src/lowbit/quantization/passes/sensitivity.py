"""How much an error at each layer's output costs at the network's output: what makes one multiplier fair to all layers.

For layer l with output error power D = tr(E H E^T) two estimates of the cost of one unit of it are at hand:

- K_l: quantize this layer alone (GPTQ, bias corrected) so that it loses `SHARE` of its output power, run the
  network, and divide the distance from the float answers by D: of a classifier the mean KL divergence, of any other
  network the relative squared error of all its outputs. It sees that an average over positions forgives and a shortcut
  does not, but not that later layers are re-fitted and make good a part.
- R_l: 1 / output power. It sees only the layer, and assumes that every layer may lose the same share.

Neither alone was best; their geometric mean was. On ResNet20 at KL 0.03, bits per weight (one seed, interpolated): R
2.47, K 2.43, the mean 2.34; white noise at the outputs in place of K 2.59, for an average over positions cancels it as
it does not cancel the errors of weights. R and K differ by no more than runs do. No labels and no gradients are used.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.answers import Answer, distances, fair_temperature, per_image
from lowbit.calibration.batches import Batches
from lowbit.calibration.divergence import BATCH_SIZE
from lowbit.calibration.moments import Moments
from lowbit.data.dataset import Dataset
from lowbit.errors import ModelError
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.graph.subgraph import ActivationGrid, Subgraphs
from lowbit.packing.entropy import entropy_bits
from lowbit.processor import cores, in_order
from lowbit.progress import SILENT, Progress
from lowbit.quantization.passes.frontier import Frontier, on_grids, restored
from lowbit.quantization.passes.layerwise import WIDEST, LayerwisePass
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.gptq import gptq
from lowbit.quantization.solving.grids import UniformGrid
from lowbit.quantization.solving.problem import Floats, Single, inverse_factor, objective
from lowbit.quantization.solving.rate_distortion import high_rate_scale
from lowbit.quantization.solving.refit import refit_bias
from lowbit.quantization.solving.ridge import DAMPING, TYPICAL_BITS, ridged, rounding_ridge, typical_power

SHARE = 0.01  # of a layer's output power that the test takes away
VALIDATION_IMAGES = 64  # that the test runs on
KEPT_BYTES = 48 << 20  # of activations that the test may begin from
LEAST_DISTANCE = 1e-9
OCTAVES = (-2, -1, 0, 1, 2, 3)  # above the test's scale, where bits are counted
UNLIMITED = 1 << 20  # codes of the test grid

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Sensitivity:
    """What one layer's output error costs.

    Attributes:
        cost: of one unit of output error power, in nats of KL, or relative error, up to a factor that all share.
        scale: high-rate scale of the layer where one bit is worth one unit of output error.
        rates: order-0 bits of all its codes at scales an octave apart: (scale, bits), finest first.
    """

    cost: float
    scale: float
    rates: tuple[tuple[float, float], ...]


def sensitivities(
    model: Model,
    data: Dataset,
    nodes: Collection[str],
    effort: Effort,
    *,
    threads: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Sensitivity]:
    """Sensitivity of each chosen layer, by node name.

    Args:
        model: the prepared float model.
        data: calibration samples; labels are not used.
        nodes: names of the layers.
        effort: how many samples and positions to look at.
        threads: that share the samples; 0 takes as many as there are cores.
        progress: told after every layer.

    Raises:
        ModelError: a layer is too wide for second moments.
    """
    rest = Rest(model, data, threads or cores())
    run = LayerwisePass(model, data, nodes, effort, threads=threads)
    tests: dict[str, Test] = {}
    for layer, moments in progress.track(run, "measuring sensitivity", total=len(run)):
        tests[layer.node] = tested(layer, np.asarray(model.weights[layer.weight], np.float64), moments, rest)
    return combined(model, tests)


@dataclass(frozen=True)
class Test:
    """What quantizing one layer alone showed.

    Attributes:
        network_cost: K, distance per unit of output error; 0 for a layer whose output is always zero.
        relative_cost: R, 1 / output power.
        scale: see `Sensitivity`.
        rates: see `Sensitivity`.
    """

    network_cost: float
    relative_cost: float
    scale: float
    rates: tuple[tuple[float, float], ...]


def tested(layer: Layer, weight: Array, moments: Moments, rest: "Rest") -> Test:
    """Quantize one layer so that it loses `SHARE` of its output power, and see what the network loses.

    Raises:
        ModelError: the layer is too wide for second moments.
    """
    if moments.second.size == 0:
        raise ModelError(
            f"it has {layer.columns:,} inputs per output; codes can be weighed against bits up to {WIDEST:,}.",
            where=f"layer '{layer.node}'",
            remedy="Quantize by a linear or cluster recipe, and pack the file that it gives.",
        )
    matrix = layer.to_matrix(weight)
    # As codes will be chosen later: without its ridge a layer of few positions seemed to need a fifth of its bits.
    typical = typical_power(matrix, moments.second)
    ridge = rounding_ridge(matrix, moments, typical, TYPICAL_BITS)
    second = ridged(moments.second, ridge, typical, damping=DAMPING)
    order = np.argsort(-np.einsum("gkk->gk", second).mean(axis=0), kind="stable")
    factor = inverse_factor(second, order)
    power = float(objective(matrix, 0.0, moments.second).sum())
    unit = high_rate_scale(factor, 1.0)
    # 12 D = s^2 * curvature per weight, and unit^2 = 6 / (ln 2 * curvature)
    scale = unit * math.sqrt(2 * math.log(2) * SHARE * max(power, 0.0) / matrix.size)
    if scale <= 0:
        return Test(0.0, 1.0, unit, ((1.0, 0.0),))
    codes = {octave: _codes(matrix[:, :, order], factor, scale * 2.0**octave) for octave in OCTAVES}
    rates = tuple((scale * 2.0**octave, entropy_bits(each)) for octave, each in codes.items())
    rounded = np.empty(matrix.shape, np.float32)
    rounded[:, :, order] = codes[0] * np.float32(scale)
    lost = float(objective(matrix, rounded, moments.second).sum())
    values = {layer.weight: layer.from_matrix(rounded)}
    if layer.bias is not None:
        bias = refit_bias(rounded.astype(np.float64), moments).reshape(rest.model.weights[layer.bias].shape)
        values[layer.bias] = bias.astype(np.float32)
    distance = rest.distance_with(layer, values)
    return Test(max(distance, LEAST_DISTANCE) / max(lost, 1e-30), 1 / power, unit, rates)


def _codes(matrix: Floats, factor: Single, scale: float) -> Single:
    """Codes as GPTQ gives them at a scale, without limits; whole numbers in float32."""
    shape = (*matrix.shape[:2], 1)
    scales, zero = np.full(shape, scale, np.float32), np.zeros(shape, np.float32)
    grid = UniformGrid(scales, zero, np.zeros(matrix.shape[2], np.intp), -UNLIMITED, UNLIMITED)
    return grid.codes(gptq(matrix, factor, grid))


class Rest:
    """The network from some layer on, run again and again on what the float layers before it give.

    Args:
        model: the prepared float model.
        data: samples; labels are not used.
        threads: that share them.
        grids: grids that single tensors can be rounded to.
        most: samples that are run.
        softened: whether a classifier's logits are softened, so that every sample has a say; see `fair_temperature`.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        threads: int,
        *,
        grids: Mapping[str, ActivationGrid] | None = None,
        most: int = VALIDATION_IMAGES,
        softened: bool = False,
    ) -> None:
        self.model = model
        batches = list(Batches(model, data.subset(min(most, data.count)), BATCH_SIZE))
        self._sizes = [len(batch) for batch in batches]
        self._frontier = Frontier(Subgraphs(model), (), threads=threads, grids=grids)
        self._frontier.keep(0, (batch.inputs for batch in batches))
        self._reference: dict[str, Answer] = {}
        self._reference = self._answers({})
        self._temperature = fair_temperature(self._reference) if softened else 1.0

    def distance_with(self, layer: Layer, weights: Mapping[str, Array], *, rounded: Collection[str] = ()) -> float:
        """Mean distance from the float answers with other values for weights of a layer; layers in execution order.

        Args:
            layer: that comes no earlier than that of the call before.
            weights: by initializer name.
            rounded: tensors that are rounded to their grids.
        """
        self._move_to(layer)
        if not self._reference:
            return SHARE  # nothing to judge by: every layer may lose the same share
        answers = self._answers(weights, rounded)
        return float(distances(self._reference, answers, temperature=self._temperature).mean())

    def _move_to(self, layer: Layer) -> None:
        """Begin just before a layer, if what is read from there on takes little memory."""
        frontier = self._frontier
        position = frontier.pieces.position(layer.node)
        if position > frontier.position:
            exact = tuple(frontier.grids)
            run = frontier.runner(frontier.pieces.crossing(position), exact=exact)
            tensors = run(next(frontier.batches()))
            if sum(tensor.nbytes for tensor in tensors.values()) * len(self._sizes) <= KEPT_BYTES:
                frontier.keep(position, in_order(run, frontier.batches(last=True), threads=frontier.threads))

    def _answers(self, weights: Mapping[str, Array], rounded: Collection[str] = ()) -> dict[str, Answer]:
        """Every float output (every output if none is) that `per_image` finds something for each image in."""
        frontier = self._frontier
        every = [output.name for output in self.model.outputs]
        # Outputs that are there before the frontier are what they are in the float network.
        start = frontier.position
        names = [name for name in every if not start or frontier.pieces.produced_by(name) >= start]
        if not names:
            return self._reference
        grids = {name: grid for name, grid in frontier.grids.items() if name in rounded}
        rest = frontier.runner(names, weights=weights, exact=[name for name in frontier.grids if name not in grids])
        batches = (on_grids(restored(kept), grids) for kept in frontier.batches())
        outputs = list(in_order(rest, batches, threads=frontier.threads))
        floats = [name for name in names if outputs[0][name].dtype.kind == "f"] or names
        answers = per_image({name: [output[name] for output in outputs] for name in floats}, self._sizes)
        return {name: value for name, value in self._reference.items() if name not in names} | answers


def combined(model: Model, tests: Mapping[str, Test]) -> dict[str, Sensitivity]:
    """Geometric means of both costs, the relative one in units of the other by their mean ratio."""
    sizes = {layer.node: math.prod(layer.weight_shape) for layer in layers(model)}
    alive = {node: test for node, test in tests.items() if test.network_cost > 0}
    total = sum(sizes[node] for node in alive)
    shift = sum(sizes[node] * math.log(test.network_cost / test.relative_cost) for node, test in alive.items())
    nats = math.exp(shift / max(1, total))
    costs = {node: math.sqrt(test.network_cost * test.relative_cost * nats) for node, test in alive.items()}
    return {node: Sensitivity(costs.get(node, nats), test.scale, test.rates) for node, test in tests.items()}

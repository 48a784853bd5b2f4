"""How much an error at each layer's output costs at the network's output: what makes one price fair to all layers.

For layer l with output error power D = tr(E H E^T) two estimates of the cost of one unit of it are at hand:

- K_l: quantize this layer alone (error feedback, bias corrected) so that it loses `SHARE` of its output power, run the
  network, and divide the mean KL divergence from the float answers by D. It sees that an average over positions
  forgives and a shortcut does not, but not that later layers are re-fitted and make good a part.
- R_l: 1 / output power. It sees only the layer, and assumes that every layer may lose the same share.

Neither alone was best; their geometric mean was. On ResNet20 at KL 0.03, bits per weight (one seed, interpolated): R
2.47, K 2.43, the mean 2.34; white noise at the outputs in place of K 2.59, for an average over positions cancels it as
it does not cancel the errors of weights. R and K differ by no more than runs do. No labels and no gradients are used.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.divergence import BATCH, mean_kl
from lowbit.calibration.moments import Moments
from lowbit.data.images import Images
from lowbit.engines import open_session
from lowbit.errors import ModelError
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.graph.subgraph import Subgraphs
from lowbit.packing.entropy import entropy_bits
from lowbit.processor import cores, in_order
from lowbit.progress import SILENT, Progress
from lowbit.quantization.passes.layerwise import WIDEST, Replacement, walk
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.gptq import Floats, Single, UniformGrid, damped, gptq, inverse_factor, objective
from lowbit.quantization.solving.layer import DAMPING
from lowbit.quantization.solving.rate_distortion import high_rate_step
from lowbit.quantization.solving.refit import refit_bias

SHARE = 0.01  # of a layer's output power that the test takes away
VALIDATION_IMAGES = 64  # images that the test looks at
KEPT = 48 << 20  # bytes of activations that the test may begin from
LEAST_KL = 1e-9
OCTAVES = (-2, -1, 0, 1, 2, 3)  # above the test's step, where bits are looked at
FAR = 1 << 20  # codes of the test grid are not limited

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Array]


@dataclass(frozen=True)
class Sensitivity:
    """What one layer's output error costs.

    Attributes:
        cost: of one unit of output error power, in nats of KL up to a factor that all layers share.
        step: high-rate step of the layer at a price of one unit of output error for a bit.
        rates: order-0 bits of all its codes at steps an octave apart: (step, bits), finest first.
    """

    cost: float
    step: float
    rates: tuple[tuple[float, float], ...]


def sensitivities(
    model: Model,
    images: Images,
    chosen: Sequence[str],
    effort: Effort,
    *,
    threads: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Sensitivity]:
    """Sensitivity of each chosen layer, by node name.

    Args:
        model: the prepared float model.
        images: calibration images; labels are not used.
        chosen: names of nodes.
        effort: how many images and positions to look at.
        threads: that share the images; 0 takes as many as there are cores.
        progress: told after every layer.
    """
    rest = _Rest(model, images, min(VALIDATION_IMAGES, images.count), threads or cores())
    reference = rest.answers({})
    found: dict[str, tuple[float, float, float]] = {}
    rates: dict[str, tuple[tuple[float, float], ...]] = {}

    def probe(layer: Layer, moments: Moments) -> Replacement:
        if moments.second.size == 0:
            raise ModelError(
                f"it has {layer.columns:,} inputs an output, and codes are weighed against bits up to {WIDEST:,}.",
                where=f"layer '{layer.node}'",
                remedy="Quantize by a linear or cluster recipe, and pack the file that it gives.",
            )
        weight = model.weights[layer.weight]
        matrix = layer.to_matrix(np.asarray(weight, np.float64))
        second = damped(moments.second, DAMPING)
        order = np.argsort(-np.einsum("gkk->gk", second).mean(axis=0), kind="stable")
        factor = inverse_factor(second, order)
        power = float(objective(matrix, 0.0, moments.second).sum())
        unit = high_rate_step(factor, 1.0)
        # 12 D = s^2 * curvature a weight, and unit^2 = 6 / (ln 2 * curvature)
        step = unit * math.sqrt(2 * math.log(2) * SHARE * max(power, 0.0) / matrix.size)
        if step <= 0:
            found[layer.node], rates[layer.node] = (0.0, 1.0, unit), ((1.0, 0.0),)
            return Replacement(weight, None)
        codes = {octave: _codes(matrix[:, :, order], factor, step * 2.0**octave) for octave in OCTAVES}
        rates[layer.node] = tuple(
            (step * 2.0**octave, entropy_bits((found - found.min()).astype(np.int32)))
            for octave, found in codes.items()
        )
        rounded = np.empty(matrix.shape, np.float32)
        rounded[:, :, order] = codes[0] * np.float32(step)
        lost = float(objective(matrix, rounded, moments.second).sum())
        values = {layer.weight: layer.from_matrix(rounded)}
        if layer.bias is not None:
            bias = refit_bias(rounded.astype(np.float64), moments).reshape(model.weights[layer.bias].shape)
            values[layer.bias] = bias.astype(np.float32)
        rest.move_to(layer)
        kl = mean_kl(reference, rest.answers(values))
        found[layer.node] = max(kl, LEAST_KL) / max(lost, 1e-30), 1 / power, unit
        return Replacement(weight, None)

    walk(
        model,
        images,
        chosen,
        probe,
        positions=effort.positions,
        limit=min(effort.images, images.count),
        threads=threads,
        progress=progress,
    )
    return {node: Sensitivity(cost, unit, rates[node]) for node, (cost, unit) in _combined(model, found).items()}


def _codes(matrix: Floats, factor: Single, step: float) -> Single:
    """Whole numbers, as error feedback gives them at a step."""
    shape = (*matrix.shape[:2], 1)
    scale, zero = np.full(shape, step, np.float32), np.zeros(shape, np.float32)
    grid = UniformGrid(scale, zero, np.zeros(matrix.shape[2], np.intp), -FAR, FAR)
    return grid.codes(gptq(matrix, factor, grid))


class _Rest:
    """The network from some layer on, run again and again on what the float layers before it give."""

    def __init__(self, model: Model, images: Images, count: int, threads: int) -> None:
        self.pieces = Subgraphs(model)
        self.output = model.outputs[0].name
        self.threads = threads
        self.at = 0
        first = model.input.shape[0] if model.input.shape else None
        size = first if isinstance(first, int) else BATCH
        parts = [part.x for part in images.batches(size, limit=count)]
        parts = [x for x in parts if not isinstance(first, int) or len(x) == size]
        self.sizes = [len(x) for x in parts]
        self.kept: list[Tensors] = [{model.input.name: x} for x in parts]

    def move_to(self, layer: Layer) -> None:
        """Begin just before a layer, if what is read from there on takes little memory."""
        position = self.pieces.position(layer.node)
        names = self.pieces.crossing(position)
        if position > self.at:
            run = self._run(names, {})
            size = sum(value.nbytes for value in run(self.kept[0]).values()) * len(self.kept)
            if size <= KEPT:
                self.kept = list(in_order(run, self.kept, threads=self.threads))
                self.at = position

    def answers(self, weights: Mapping[str, Array]) -> Array:
        """First output for every image, flattened to [images, values], with other values for some weights."""
        found = in_order(self._run([self.output], weights), self.kept, threads=self.threads)
        parts = [np.asarray(part[self.output], np.float32) for part in found]
        return np.concatenate([part.reshape(size, -1) for part, size in zip(parts, self.sizes, strict=True)])

    def _run(self, names: Sequence[str], weights: Mapping[str, Array]) -> Callable[[Tensors], Tensors]:
        """What computes these tensors from those that are kept."""
        available = self.pieces.crossing(self.at)
        missing = [name for name in names if name not in available]
        if not missing:
            return lambda kept: {name: kept[name] for name in names}
        piece, inputs = self.pieces.extract(available, missing, weights=weights)
        session = open_session(piece, threads=1)

        def run(kept: Tensors) -> Tensors:
            found = session.run({name: kept[name] for name in inputs})
            return found | {name: kept[name] for name in names if name in available}

        return run


def _combined(model: Model, found: Mapping[str, tuple[float, float, float]]) -> dict[str, tuple[float, float]]:
    """Cost and step: geometric means of both estimates, the relative one scaled to nats by their mean ratio."""
    sizes = {layer.node: math.prod(layer.weight_shape) for layer in layers(model)}
    alive = {node: (kl, relative) for node, (kl, relative, _) in found.items() if kl > 0}
    total = sum(sizes[node] for node in alive)
    shift = sum(sizes[node] * math.log(kl / relative) for node, (kl, relative) in alive.items()) / max(1, total)
    scale = math.exp(shift)
    return {
        node: (math.sqrt(kl * relative * scale) if kl > 0 else scale, unit)
        for node, (kl, relative, unit) in found.items()
    }

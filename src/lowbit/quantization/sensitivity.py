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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lowbit.calibration.divergence import answers, mean_kl
from lowbit.calibration.moments import Moments
from lowbit.data.images import Images
from lowbit.errors import ModelError
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.progress import SILENT, Progress
from lowbit.quantization.effort import Effort
from lowbit.quantization.prefix import WIDEST, Replacement, walk
from lowbit.quantization.rate import high_rate_step
from lowbit.quantization.refit import refit_bias
from lowbit.quantization.rounding import UniformGrid, damped, feedback, inverse_factor
from lowbit.quantization.solve import DAMPING

SHARE = 0.01  # of a layer's output power that the test takes away
JUDGES = 128  # images that the test looks at
LEAST_KL = 1e-9
FAR = 1 << 20  # codes of the test grid are not limited


@dataclass(frozen=True)
class Sensitivity:
    """What one layer's output error costs.

    Attributes:
        cost: of one unit of output error power, in nats of KL up to a factor that all layers share.
        step: high-rate step of the layer at a price of one unit of output error for a bit.
    """

    cost: float
    step: float


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
        threads: threads of the runtime; 0 leaves it to the runtime.
        progress: told after every layer.
    """
    count = min(JUDGES, images.count)
    reference = answers(model.to_bytes(), model, images, limit=count, threads=threads)
    found: dict[str, tuple[float, float, float]] = {}

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
        factor = inverse_factor(second[:, order[:, None], order])
        power = float(np.einsum("grk,grk->", matrix @ moments.second, matrix))
        unit = high_rate_step(factor, 1.0)
        if power <= 0:
            found[layer.node] = 0.0, 1.0, unit
            return Replacement(weight, None)
        # 12 D = s^2 * curvature a weight, and unit^2 = 6 / (ln 2 * curvature)
        step = unit * math.sqrt(2 * math.log(2) * SHARE * power / matrix.size)
        shape = (*matrix.shape[:2], 1)
        grid = UniformGrid(
            np.full(shape, step, np.float32), np.zeros(shape, np.float32), np.zeros(len(order), np.intp), -FAR, FAR
        )
        rounded = np.empty(matrix.shape, np.float32)
        rounded[:, :, order] = feedback(matrix[:, :, order], factor, grid)
        error = matrix - rounded
        lost = float(np.einsum("grk,grk->", error @ moments.second, error))
        values = {layer.weight: layer.from_matrix(rounded)}
        if layer.bias is not None:
            bias = refit_bias(rounded.astype(np.float64), moments).reshape(model.weights[layer.bias].shape)
            values[layer.bias] = bias.astype(np.float32)
        answer = answers(model.with_weights(values).to_bytes(), model, images, limit=count, threads=threads)
        kl = mean_kl(reference, answer)
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
    return _combined(model, found)


def _combined(model: Model, found: Mapping[str, tuple[float, float, float]]) -> dict[str, Sensitivity]:
    """Geometric means of both estimates, the relative one scaled to nats by the mean ratio of the two."""
    sizes = {layer.node: math.prod(layer.weight_shape) for layer in layers(model)}
    alive = {node: (kl, relative) for node, (kl, relative, _) in found.items() if kl > 0}
    total = sum(sizes[node] for node in alive)
    shift = sum(sizes[node] * math.log(kl / relative) for node, (kl, relative) in alive.items()) / max(1, total)
    scale = math.exp(shift)
    return {
        node: Sensitivity(math.sqrt(kl * relative * scale) if kl > 0 else scale, unit)
        for node, (kl, relative, unit) in found.items()
    }

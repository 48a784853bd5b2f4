"""One layer from its moments to its codes: re-fit the target, choose grid and codes, correct the bias."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowbit.calibration.moments import Moments
from lowbit.graph.ops import Layer
from lowbit.quantization.solving.clusters import solve_clusters
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.gptq import Single, damped, objective
from lowbit.quantization.solving.linear import solve_linear
from lowbit.quantization.solving.refit import refit_bias, refit_weights
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.codes import Codes
from lowbit.schemes.linear import Linear

DAMPING = 1e-2  # of H while rounding
REFIT_DAMPING = 0.1  # of H while re-fitting the target: higher, for what it fits is noise where positions are few


@dataclass(frozen=True)
class LayerSolution:
    """A solved layer.

    Attributes:
        codes: of its weight.
        bias: corrected bias [output channels].
        nearest: relative squared output error of plain rounding on this target; for code books that of the codes too.
        error: of the codes; both as shares of the output's variance, 0 where second moments are not known.
    """

    codes: Codes
    bias: npt.NDArray[np.float32]
    nearest: float
    error: float


def solve_layer(
    layer: Layer, weight: npt.NDArray[np.floating], moments: Moments, scheme: Linear | Clusters, effort: Effort
) -> LayerSolution:
    """Codes and bias of a layer.

    Args:
        layer: where the weight belongs.
        weight: trained, in the stored shape.
        moments: of the layer's inputs and wanted outputs.
        scheme: what the weight becomes.
        effort: how long to search.
    """
    if moments.second.size == 0:  # too wide for second moments: plain codes, and the bias that goes with them
        codes: Codes = scheme.encode(np.asarray(weight, np.float32), layer.channel_axis)
        bias = refit_bias(layer.to_matrix(codes.decode().astype(np.float64)), moments)
        return LayerSolution(codes, bias.reshape(-1).astype(np.float32), 0.0, 0.0)
    matrix = layer.to_matrix(np.asarray(weight, np.float64))
    target = refit_weights(matrix, moments, damping=REFIT_DAMPING)
    # Damped where it is, and put back before errors are counted: a copy of a wide layer's H takes 85 MB.
    diagonal = np.einsum("gkk->gk", moments.second).copy()
    second = damped(moments.second, DAMPING, in_place=True)
    fitted = layer.from_matrix(target).astype(np.float32)
    # Fine codes hardly move the output: the grid over the whole range of a channel is as good.
    fine = scheme.bits > 8 or (scheme.bits > effort.widest and scheme.per != "tensor")
    searched = not fine and _simple(layer)
    # Code books begin from k-means anyway, which is what takes the time of plain encoding.
    plain = None if searched and isinstance(scheme, Clusters) else scheme.encode(fitted, layer.channel_axis)
    codes = _solved(layer, target, second, scheme, effort) if searched or plain is None else plain
    np.einsum("gkk->gk", moments.second)[...] = diagonal
    power = max(float(objective(target, 0.0, moments.second).sum()), 1e-30)

    def share(found: Codes) -> float:
        return float(objective(target, layer.to_matrix(found.decode()), moments.second).sum()) / power

    error = share(codes)
    nearest = error if plain is None else share(plain)
    if plain is not None and error > nearest:  # only the grid's shape (a coarser zero point, half precision) can do it
        codes, error = plain, nearest
    bias = refit_bias(layer.to_matrix(codes.decode().astype(np.float64)), moments)
    return LayerSolution(codes, bias.reshape(-1).astype(np.float32), nearest, error)


def _simple(layer: Layer) -> bool:
    """Whether one row of the matrix is one channel of the weight's axis."""
    return not (layer.op == "ConvTranspose" and layer.groups > 1)


def _solved(
    layer: Layer,
    target: npt.NDArray[np.floating],
    second: Single,
    scheme: Linear | Clusters,
    effort: Effort,
) -> Codes:
    groups, rows, _ = target.shape
    if isinstance(scheme, Linear):
        linear = solve_linear(target, second, scheme, effort)
        stored = layer.from_matrix(linear.codes)
        tied = scheme.per == "tensor"
        scale = linear.scale.reshape(-1)[: 1 if tied else None]
        zero = None if scheme.symmetric else (linear.zero.reshape(-1)[:1] if tied else linear.zero.reshape(-1))
        return scheme.from_codes(stored, scale, zero_point=zero, axis=layer.channel_axis)
    shared = scheme.blocks(layer.weight_shape, layer.channel_axis)
    book = np.broadcast_to(shared.spread(np.arange(shared.count)), (groups * rows, 1)).reshape(groups, rows)
    clusters = solve_clusters(target, second, scheme, effort, book=book)
    factors = None if clusters.scale is None else clusters.scale.reshape(-1)
    return scheme.from_indices(
        layer.from_matrix(clusters.codes), clusters.books, scale=factors, axis=layer.channel_axis
    )

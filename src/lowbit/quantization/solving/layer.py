"""One layer from its moments to its codes: re-fit the target, choose grid and codes, correct the bias."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowbit.calibration.moments import Moments
from lowbit.graph.ops import Layer
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.problem import Floats, Problem, Single, objective
from lowbit.quantization.solving.refit import refit_bias, refit_weights
from lowbit.quantization.solving.ridge import DAMPING, ridged, rounding_ridge, typical_power
from lowbit.quantization.solving.schemes import row_of
from lowbit.schemes.codes import Codes, Scheme

LARGEST_SQUARE = 1e30  # sums of them have to fit into float32 too


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
    layer: Layer,
    weight: npt.NDArray[np.floating],
    moments: Moments,
    scheme: Scheme,
    effort: Effort,
    least_scale: npt.NDArray[np.float32] | None = None,
) -> LayerSolution:
    """Codes and bias of a layer.

    Args:
        layer: where the weight belongs.
        weight: trained, in the stored shape.
        moments: of the layer's inputs and wanted outputs.
        scheme: what the weight becomes.
        effort: how long to search.
        least_scale: no channel may have a smaller scale [output channels]; None where nothing asks for more.
    """
    # The ridge goes where H is, and is taken off before errors are counted: a copy of a wide layer's H takes 85 MB.
    diagonal = np.einsum("gkk->gk", moments.second).copy()
    # Too wide for second moments, or outputs whose squares float32 does not hold: plain codes, and the bias with them.
    if moments.second.size == 0 or not _holds_squares(weight, diagonal):
        codes = scheme.encode(np.asarray(weight, np.float32), layer.channel_axis)
        return LayerSolution(codes, _bias(layer, codes, moments), 0.0, 0.0)
    target, second = aim(layer.to_matrix(np.asarray(weight, np.float64)), moments, scheme.bits)
    row = row_of(scheme)
    searched = row.solve is not None and _pays(scheme, effort) and rows_are_channels(layer)
    plain = None
    if row.try_plain or not searched:
        plain = scheme.encode(layer.from_matrix(target).astype(np.float32), layer.channel_axis)
    if searched and row.solve is not None:
        codes = row.solve(Problem.of(target, second, least_scale), scheme, effort).to_codes(layer, scheme)
    else:
        assert plain is not None
        codes = plain
    np.einsum("gkk->gk", moments.second)[...] = diagonal
    power = max(float(objective(target, 0.0, moments.second).sum()), 1e-30)

    def share(codes: Codes) -> float:
        return float(objective(target, layer.to_matrix(codes.decode()), moments.second).sum()) / power

    error = share(codes)
    nearest = error if plain is None else share(plain)
    if plain is not None and error > nearest:  # only the grid's shape (a coarser zero point, half precision) can do it
        codes, error = plain, nearest
    return LayerSolution(codes, _bias(layer, codes, moments), nearest, error)


def aim(weights: Floats, moments: Moments, bits: int) -> tuple[Floats, Single]:
    """What codes should come close to [groups, rows, columns], and H with its ridge, in the place of H.

    Args:
        weights: trained [groups, rows, columns].
        moments: of the layer.
        bits: of the codes.
    """
    typical = typical_power(weights, moments.second)
    target = refit_weights(weights, moments, typical)
    ridge = rounding_ridge(target, moments, typical, bits)
    return target, ridged(moments.second, ridge, typical, damping=DAMPING, in_place=True)


def _holds_squares(weight: npt.NDArray[np.floating], moments: npt.NDArray[np.float32]) -> bool:
    """Whether float32 holds the inputs' second moments, the weights' squares, and their products."""
    power, square = float(moments.max()), float(np.abs(weight).max()) ** 2
    return max(power, square, power * square) < LARGEST_SQUARE


def _pays(scheme: Scheme, effort: Effort) -> bool:
    """Whether codes are chosen for the objective: fine ones hardly move the output, whatever the grid."""
    fine = scheme.bits > 8 or (scheme.bits > effort.widest and scheme.per != "tensor")
    return not fine


def rows_are_channels(layer: Layer) -> bool:
    """Whether one row of the matrix is one channel of the weight's axis."""
    return not (layer.op == "ConvTranspose" and layer.groups > 1)


def _bias(layer: Layer, codes: Codes, moments: Moments) -> npt.NDArray[np.float32]:
    """The bias that goes with codes [output channels]."""
    bias = refit_bias(layer.to_matrix(codes.decode().astype(np.float64)), moments)
    return bias.reshape(-1).astype(np.float32)

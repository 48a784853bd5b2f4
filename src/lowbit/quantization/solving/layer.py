"""One layer from its moments to its codes: re-fit the target, choose grid and codes, correct the bias."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowbit.calibration.moments import Moments
from lowbit.graph.ops import Layer
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.problem import Problem, damped, objective
from lowbit.quantization.solving.refit import refit_bias, refit_weights
from lowbit.quantization.solving.schemes import row_of
from lowbit.schemes.codes import Codes, Scheme

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
    if moments.second.size == 0:  # too wide for second moments: plain codes, and the bias that goes with them
        codes = scheme.encode(np.asarray(weight, np.float32), layer.channel_axis)
        return LayerSolution(codes, _bias(layer, codes, moments), 0.0, 0.0)
    target = refit_weights(layer.to_matrix(np.asarray(weight, np.float64)), moments, damping=REFIT_DAMPING)
    # Damped where it is, and put back before errors are counted: a copy of a wide layer's H takes 85 MB.
    diagonal = np.einsum("gkk->gk", moments.second).copy()
    second = damped(moments.second, DAMPING, in_place=True)
    row = row_of(scheme)
    searched = row.solve is not None and _pays(scheme, effort) and _rows_are_channels(layer)
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


def _pays(scheme: Scheme, effort: Effort) -> bool:
    """Whether codes are chosen for the objective: fine ones hardly move the output, whatever the grid."""
    fine = scheme.bits > 8 or (scheme.bits > effort.widest and scheme.per != "tensor")
    return not fine


def _rows_are_channels(layer: Layer) -> bool:
    """Whether one row of the matrix is one channel of the weight's axis."""
    return not (layer.op == "ConvTranspose" and layer.groups > 1)


def _bias(layer: Layer, codes: Codes, moments: Moments) -> npt.NDArray[np.float32]:
    """The bias that goes with codes [output channels]."""
    bias = refit_bias(layer.to_matrix(codes.decode().astype(np.float64)), moments)
    return bias.reshape(-1).astype(np.float32)

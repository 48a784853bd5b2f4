"""How far the stored weights are from the float weights: MSE and SQNR, per tensor and pooled.

The float weights that the runtime would have used (batch norms folded) are compared with those that it really uses,
decoded from the re-opened file. Totals add squared errors and squared weights over all tensors before dividing,
so that a layer counts by its number of weights; an average of decibels would say something else.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowbit.errors import ModelError
from lowbit.measurement.details import Histogram


@dataclass(frozen=True)
class WeightError:
    """Sums over one tensor (or several pooled), from which MSE and SQNR follow."""

    name: str
    count: int
    squared_error: float
    squared_weights: float

    @property
    def mse(self) -> float:
        """Mean squared error."""
        return self.squared_error / self.count if self.count else 0.0

    @property
    def exact(self) -> bool:
        """Not one weight differs."""
        return self.squared_error == 0.0

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(sum w^2 / sum (w - q)^2) in decibels; `None` where exact, or where all weights are zero."""
        if self.exact or self.squared_weights == 0.0:
            return None
        return 10 * math.log10(self.squared_weights / self.squared_error)


def weight_errors(
    weights: Mapping[str, NDArray[np.floating]], decoded: Mapping[str, NDArray[np.floating]]
) -> tuple[WeightError, ...]:
    """Error of every tensor, matched by name, in the order of `weights`.

    Raises:
        ModelError: the two do not hold the same names and shapes, or a decoded weight is not finite.
    """
    strangers = sorted(weights.keys() ^ decoded.keys())
    if strangers:
        side = "file" if strangers[0] in weights else "float model"
        raise ModelError(
            f"is missing in the {side}.", where=strangers[0], remedy="Compare files made from the same float model."
        )
    return tuple(_error(name, value, decoded[name]) for name, value in weights.items())


def total(errors: Iterable[WeightError], *, name: str = "total") -> WeightError:
    """All weights pooled."""
    errors = tuple(errors)
    return WeightError(
        name,
        sum(e.count for e in errors),
        math.fsum(e.squared_error for e in errors),
        math.fsum(e.squared_weights for e in errors),
    )


def weight_histogram(
    tensor: str,
    weights: NDArray[np.floating],
    *,
    bins: int = 96,
    code_book: NDArray[np.floating] | None = None,
) -> Histogram:
    """Count float weights in equal bins from the smallest to the largest; the code book is kept sorted beside them."""
    values = weights.astype(np.float64).ravel()
    least, most = float(values.min()), float(values.max())
    # Of one value, numpy takes half a unit on either side, which large values do not resolve.
    margin = 0.0 if most - least > bins * np.spacing(max(abs(least), abs(most))) else max(0.5, abs(most) / 2)
    counts, edges = np.histogram(values, bins=bins, range=(least - margin, most + margin))
    book = None if code_book is None else tuple(float(v) for v in np.unique(code_book))
    return Histogram(tensor, tuple(float(v) for v in edges), tuple(int(v) for v in counts), book)


def _error(name: str, weights: NDArray[np.floating], decoded: NDArray[np.floating]) -> WeightError:
    if weights.shape != decoded.shape:
        raise ModelError(
            f"has shape {decoded.shape} in the file and {weights.shape} in the float model.",
            where=name,
            remedy="Compare files made from the same float model.",
        )
    if not np.isfinite(decoded).all():
        raise ModelError("holds NaN or infinite weights in the file.", where=name, remedy="Quantize the model again.")
    w = weights.astype(np.float64).ravel()
    difference = w - decoded.astype(np.float64).ravel()
    return WeightError(name, w.size, float(difference @ difference), float(w @ w))

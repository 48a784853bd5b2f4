"""Clusters: a tensor as indices into a code book of 2^bits float32 values, by k-means on the values.

    x ~ code_book[index]

Decoding is one Gather, so exact in any runtime. With `scaled` a channel multiplies what it finds by a scale of its own,
`x ~ code_book[index] * scale[channel]` (one float32 product): channels of different range can then share one book, for
two bytes each instead of a book each. With `half` the code book holds only values that float16 has, and can
be stored as such; values are assigned anew after that rounding. A tensor with no more distinct values than the code
book has entries is kept exactly (unless `half`). Gives up: uniform spacing, so no integer arithmetic on the codes.

Source: Han et al. 2016, "Deep compression" (arXiv 1510.00149), section 3, without its retraining.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError
from lowbit.schemes.groups import Granularity, Groups, check_finite, check_granularity, make_groups
from lowbit.schemes.kmeans import fit_1d, fit_rows, nearest

FLOAT16_MAX = float(np.finfo(np.float16).max)
HALF_LEAST = float(np.finfo(np.float16).smallest_normal)
SMALLEST = float(np.finfo(np.float32).smallest_normal)


@dataclass(frozen=True)
class Clusters:
    """A code book of 1..8 bits for each tensor, channel, or group of channels.

    Args:
        bits: width of an index.
        per: what shares a code book.
        group_size: channels in a group (the last group may be smaller), for per="group" only.
        half: round code books, and scales where float16 has them to full precision, to values that float16 holds.
        scaled: each channel has a scale; where every channel has a code book that would be one number too many.
    """

    bits: int
    per: Granularity = "tensor"
    group_size: int | None = None
    half: bool = False
    scaled: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise SchemeError(f"clusters have 1 to 8 bits, not {self.bits}.")
        check_granularity(self.per, self.group_size)
        if self.scaled and self.per == "channel":
            raise SchemeError("a channel with a code book of its own needs no scale.", remedy="Leave scaled out.")

    @property
    def name(self) -> str:
        """Short name, such as cluster4/tensor or cluster2/group16/half."""
        more = f"{'/half' if self.half else ''}{'/scaled' if self.scaled else ''}"
        return f"cluster{self.bits}/{self.per}{self.group_size or ''}{more}"

    def groups(self, shape: tuple[int, ...], axis: int = 0) -> Groups:
        """What shares a code book in a tensor of `shape` whose output channel is `axis`."""
        rows_each = {"tensor": None, "channel": 1, "group": self.group_size}[self.per]
        return make_groups(shape, axis, rows_each=rows_each, columns_each=None)

    def to_json(self) -> dict[str, str | int | bool | None]:
        """Plain data for `scheme_from_json`."""
        return {
            "kind": "cluster",
            "bits": self.bits,
            "per": self.per,
            "group_size": self.group_size,
            "half": self.half,
            "scaled": self.scaled,
        }

    def encode(
        self, x: npt.NDArray[np.floating], axis: int = 0, *, importance: npt.NDArray[np.floating] | None = None
    ) -> "ClusterCodes":
        """Cluster `x`; `importance`, of the same shape and not negative, weighs the squared errors.

        Raises:
            SchemeError: `x` is empty, not floating-point, holds NaN or infinite values, or more than float16 holds and
                `half` is asked for; or `importance` does not fit.
        """
        groups = self.groups(x.shape, axis)
        check_finite(x)
        if importance is not None and importance.shape != x.shape:
            raise SchemeError(f"importance of shape {importance.shape} does not fit a tensor of shape {x.shape}.")
        rows = groups.to_rows(x.astype(np.float32, copy=False))
        weights = None if importance is None else groups.to_rows(importance)
        if not self.scaled:
            return self._assign(rows, self._fit(rows, weights, groups), groups)
        scale = self.fitting(np.sqrt(np.square(rows, dtype=np.float64).mean(axis=1)))
        power = np.broadcast_to(np.square(scale, dtype=np.float64)[:, None], rows.shape)
        normal = rows / scale[:, None]
        books = self._fit(normal, power if weights is None else power * weights, groups)
        return self._assign(normal, books, groups, scale)

    def encode_with(
        self,
        x: npt.NDArray[np.floating],
        code_books: npt.NDArray[np.floating],
        *,
        scale: npt.NDArray[np.floating] | None = None,
        axis: int = 0,
    ) -> "ClusterCodes":
        """The nearest entries of given code books [groups, 2^bits], which are sorted first, with scales [channels]."""
        groups = self.groups(x.shape, axis)
        check_finite(x)
        books = np.sort(self._checked(code_books, groups), axis=1)
        factors = self._checked_scale(scale, groups)
        rows = groups.to_rows(x.astype(np.float32, copy=False))
        return self._assign(rows if factors is None else rows / factors[:, None], books, groups, factors)

    def from_indices(
        self,
        indices: npt.NDArray[np.integer],
        code_books: npt.NDArray[np.floating],
        *,
        scale: npt.NDArray[np.floating] | None = None,
        axis: int = 0,
    ) -> "ClusterCodes":
        """Indices that were chosen elsewhere, in the shape of the tensor, with code books [groups, 2^bits] and scales.

        Raises:
            SchemeError: an index without an entry, or code books that do not fit the scheme and shape.
        """
        groups = self.groups(indices.shape, axis)
        if not np.issubdtype(indices.dtype, np.integer) or indices.min() < 0 or indices.max() >= 1 << self.bits:
            raise SchemeError(f"indices of {self.name} must be integers in 0..{(1 << self.bits) - 1}.")
        books, factors = self._checked(code_books, groups), self._checked_scale(scale, groups)
        return ClusterCodes(np.ascontiguousarray(indices, np.uint8), books, self, groups, factors)

    def fitting(self, scale: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Positive float32 scales near these [channels]; channels of nothing but zeros get 1.

        With `half` they are values of float16, unless some of them lie where it has fewer digits.
        """
        scale = np.where(scale > 0, np.maximum(scale, SMALLEST), 1.0)
        if self.half and scale.min() >= HALF_LEAST and scale.max() <= FLOAT16_MAX:
            scale = scale.astype(np.float16)
        return scale.astype(np.float32)

    def _checked_scale(self, scale: npt.NDArray[np.floating] | None, groups: Groups) -> npt.NDArray[np.float32] | None:
        if (scale is not None) != self.scaled:
            raise SchemeError(f"{self.name} takes {'scales' if self.scaled else 'no scale'}.")
        if scale is None:
            return None
        if scale.shape != (groups.rows,):
            raise SchemeError(f"{self.name} needs {groups.rows} scales for shape {groups.shape}, got {scale.shape}.")
        check_finite(scale)
        if scale.min() < SMALLEST:
            raise SchemeError("scales must be positive.")
        return scale.astype(np.float32)

    def _fit(
        self, rows: npt.NDArray[np.float32], weights: npt.NDArray[np.floating] | None, groups: Groups
    ) -> npt.NDArray[np.float32]:
        """Code books [groups, 2^bits], float32, ascending."""
        k = 1 << self.bits
        whole = groups.rows // groups.rows_each  # groups of full size are solved together
        span = groups.rows_each * whole
        parts = [(slice(0, span), whole), (slice(span, None), 1)][: 1 + (span < groups.rows)]
        books = np.empty((groups.count, k))
        for at, (part, count) in enumerate(parts):
            values = rows[part].reshape(count, -1)
            masses = None if weights is None else weights[part].reshape(count, -1)
            where = slice(at * whole, at * whole + count)
            if count == 1:  # the long road is finer
                books[where] = fit_1d(values[0], k, weights=None if masses is None else masses[0])
            else:
                books[where] = fit_rows(values, k, weights=masses)
        return self._checked(books, groups)

    def _checked(self, code_books: npt.NDArray[np.floating], groups: Groups) -> npt.NDArray[np.float32]:
        if code_books.shape != (groups.count, 1 << self.bits):
            raise SchemeError(
                f"{self.name} needs code books of shape {(groups.count, 1 << self.bits)} for a tensor of shape "
                f"{groups.shape}, got {code_books.shape}."
            )
        if self.half:
            if np.abs(code_books).max() > FLOAT16_MAX:
                raise SchemeError("values beyond 65504 do not fit a half-precision code book.", remedy="Use float32.")
            code_books = code_books.astype(np.float16)
        check_finite(code_books)
        return code_books.astype(np.float32)

    def _assign(
        self,
        rows: npt.NDArray[np.float32],
        books: npt.NDArray[np.float32],
        groups: Groups,
        scale: npt.NDArray[np.float32] | None = None,
    ) -> "ClusterCodes":
        indices = np.empty(rows.shape, np.uint8)
        for book, start in zip(books, range(0, groups.rows, groups.rows_each), strict=True):
            part = rows[start : start + groups.rows_each]
            indices[start : start + groups.rows_each] = nearest(part.reshape(-1), book).reshape(part.shape)
        return ClusterCodes(groups.from_rows(indices), books, self, groups, scale)


@dataclass(frozen=True)
class ClusterCodes:
    """A tensor as indices into code books.

    Args:
        indices: uint8 in the shape of the tensor.
        code_books: float32 [groups.count, 2^bits]; `encode` makes them ascending, the last value repeated where there
            are fewer clusters than entries.
        scheme: the hyper-parameters.
        groups: what shares a code book; `groups.spread(np.arange(groups.count))` is each channel's.
        scale: float32 [channels], or None.
    """

    indices: npt.NDArray[np.uint8]
    code_books: npt.NDArray[np.float32]
    scheme: Clusters
    groups: Groups
    scale: npt.NDArray[np.float32] | None = None

    @property
    def bits(self) -> int:
        """Width of an index."""
        return self.scheme.bits

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.groups.shape

    @property
    def axis(self) -> int:
        """The tensor's output channel."""
        return self.groups.axis

    @property
    def channels_per_book(self) -> int | None:
        """Channels that share a code book; None if all do."""
        return None if self.groups.count == 1 else self.groups.rows_each

    @property
    def half(self) -> bool:
        """Whether the code books are exact in float16."""
        return self.scheme.half

    @property
    def parameter_counts(self) -> dict[str, int]:
        """What is stored beside the codes: numbers of scales, zero points and code book entries."""
        return {
            "scales": 0 if self.scale is None else self.scale.size,
            "zero_points": 0,
            "code_books": self.code_books.size,
        }

    def unsigned(self) -> tuple[npt.NDArray[np.uint8], int]:
        """Indices for packing, and the offset 0, as `LinearCodes.unsigned`."""
        return self.indices, 0

    def decode(self) -> npt.NDArray[np.float32]:
        """The tensor that a runtime sees, float32, to the bit."""
        if self.groups.count == 1:
            values = np.take(self.code_books[0], self.indices)
        else:
            firsts = self.groups.spread(np.arange(self.groups.count) << self.bits)
            values = self.groups.from_rows(np.take(self.code_books, self.groups.to_rows(self.indices) + firsts))
        if self.scale is None:
            return values
        return self.groups.from_rows(self.groups.to_rows(values) * self.scale[:, None])

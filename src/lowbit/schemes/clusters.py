"""Clusters: a tensor as indices into a code book of 2^bits float32 values, by k-means on the values.

    x ~ code_book[index]

Decoding is one Gather, so exact in any runtime. With `scaled` a channel multiplies what it finds by a scale of its own,
`x ~ code_book[index] * scale[channel]` (one float32 product): channels of different range can then share one book, for
two bytes per channel instead of a book per channel. With `half` the code book holds only values that float16 has, and
can be stored as such; values are assigned anew after that rounding. A tensor with no more distinct values than the code
book has entries is kept exactly (unless `half`). Gives up: uniform spacing, so no integer arithmetic on the codes.

Source: Han et al. 2016, "Deep compression" (arXiv 1510.00149), section 3, without its retraining.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError
from lowbit.schemes.blocks import Blocks, Granularity, check_finite, check_granularity, make_blocks
from lowbit.schemes.codes import C, Decoder, OfBlocks
from lowbit.schemes.kmeans import fit_1d, fit_rows, nearest

# What the nodes, names and shapes that decode one tensor add to a file, measured on written files.
DECODE_BYTES = 230
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
        scaled: each channel has a scale; needless where every channel has its own code book.

    >>> weights = np.random.default_rng(0).normal(size=(8, 9)).astype(np.float32)
    >>> codes = lowbit.Clusters(2).encode(weights, axis=0)
    >>> len(np.unique(codes.decode()))
    4
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

    def blocks(self, shape: tuple[int, ...], axis: int = 0) -> Blocks:
        """What shares a code book in a tensor of `shape` whose output channel is `axis`."""
        rows_each = {"tensor": None, "channel": 1, "group": self.group_size}[self.per]
        return make_blocks(shape, axis, rows_each=rows_each, columns_each=None)

    @property
    def half_levels(self) -> float:
        """How many levels lie on one side of zero."""
        return ((1 << self.bits) - 1) / 2

    def per_tensor(self) -> "Clusters":
        """The same scheme, with one code book for the whole tensor."""
        return replace(self, per="tensor", group_size=None)

    def with_bits(self, bits: int) -> "Clusters":
        """The same kind of code book, with more or fewer levels."""
        return replace(self, bits=bits)

    def stored_bytes(self, shape: tuple[int, ...], axis: int) -> int:
        """Bytes in a file: codes, code books and scales, and the nodes that decode them."""
        size = math.prod(shape)
        numbers = self.blocks(shape, axis).count << self.bits if size else 0
        numbers += shape[axis] if self.scaled else 0
        return -(-size * self.bits // 8) + numbers * (2 if self.half else 4) + DECODE_BYTES

    def encode(self, x: npt.NDArray[np.floating], axis: int = 0) -> "ClusterCodes":
        """Cluster `x`.

        Raises:
            SchemeError: `x` is empty, not floating-point, holds NaN or infinite values, or more than float16 holds and
                `half` is asked for.
        """
        blocks = self.blocks(x.shape, axis)
        check_finite(x)
        rows = blocks.to_rows(x.astype(np.float32, copy=False))
        if not self.scaled:
            return self._assign(rows, self._fit(rows, None, blocks), blocks)
        scale = self.fitting(np.sqrt(np.square(rows, dtype=np.float64).mean(axis=1)))
        power = np.broadcast_to(np.square(scale, dtype=np.float64)[:, None], rows.shape)
        normal = rows / scale[:, None]
        return self._assign(normal, self._fit(normal, power, blocks), blocks, scale)

    def encode_with(
        self,
        x: npt.NDArray[np.floating],
        code_books: npt.NDArray[np.floating],
        *,
        scale: npt.NDArray[np.floating] | None = None,
        axis: int = 0,
    ) -> "ClusterCodes":
        """The nearest entries of given code books [blocks, 2^bits], which are sorted first, with scales [channels]."""
        blocks = self.blocks(x.shape, axis)
        check_finite(x)
        books = np.sort(self._checked(code_books, blocks), axis=1)
        factors = self._checked_scale(scale, blocks)
        rows = blocks.to_rows(x.astype(np.float32, copy=False))
        return self._assign(rows if factors is None else rows / factors[:, None], books, blocks, factors)

    def from_indices(
        self,
        indices: npt.NDArray[np.integer],
        code_books: npt.NDArray[np.floating],
        *,
        scale: npt.NDArray[np.floating] | None = None,
        axis: int = 0,
    ) -> "ClusterCodes":
        """Indices that were chosen elsewhere, in the shape of the tensor, with code books [blocks, 2^bits] and scales.

        Raises:
            SchemeError: an index without an entry, or code books that do not fit the scheme and shape.
        """
        blocks = self.blocks(indices.shape, axis)
        if not np.issubdtype(indices.dtype, np.integer) or indices.min() < 0 or indices.max() >= 1 << self.bits:
            raise SchemeError(f"indices of {self.name} must be integers in 0..{(1 << self.bits) - 1}.")
        books, factors = self._checked(code_books, blocks), self._checked_scale(scale, blocks)
        return ClusterCodes(np.ascontiguousarray(indices, np.uint8), books, self, blocks, factors)

    def fitting(self, scale: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Positive float32 scales near these [channels]; channels of nothing but zeros get 1.

        With `half` they are values of float16, unless some of them lie where it has fewer digits.
        """
        scale = np.where(scale > 0, np.maximum(scale, SMALLEST), 1.0)
        if self.half and scale.min() >= HALF_LEAST and scale.max() <= FLOAT16_MAX:
            scale = scale.astype(np.float16)
        return scale.astype(np.float32)

    def _checked_scale(self, scale: npt.NDArray[np.floating] | None, blocks: Blocks) -> npt.NDArray[np.float32] | None:
        if (scale is not None) != self.scaled:
            raise SchemeError(f"{self.name} takes {'scales' if self.scaled else 'no scale'}.")
        if scale is None:
            return None
        if scale.shape != (blocks.rows,):
            raise SchemeError(f"{self.name} needs {blocks.rows} scales for shape {blocks.shape}, got {scale.shape}.")
        check_finite(scale)
        if scale.min() < SMALLEST:
            raise SchemeError("scales must be positive.")
        return scale.astype(np.float32)

    def _fit(
        self, rows: npt.NDArray[np.float32], weights: npt.NDArray[np.floating] | None, blocks: Blocks
    ) -> npt.NDArray[np.float32]:
        """Code books [blocks, 2^bits], float32, ascending."""
        k = 1 << self.bits
        whole = blocks.rows // blocks.rows_each  # groups of full size are solved together
        span = blocks.rows_each * whole
        parts = [(slice(0, span), whole), (slice(span, None), 1)][: 1 + (span < blocks.rows)]
        books = np.empty((blocks.count, k))
        for at, (part, count) in enumerate(parts):
            values = rows[part].reshape(count, -1)
            masses = None if weights is None else weights[part].reshape(count, -1)
            where = slice(at * whole, at * whole + count)
            if count == 1:  # the long road is finer
                books[where] = fit_1d(values[0], k, weights=None if masses is None else masses[0])
            else:
                books[where] = fit_rows(values, k, weights=masses)
        return self._checked(books, blocks)

    def _checked(self, code_books: npt.NDArray[np.floating], blocks: Blocks) -> npt.NDArray[np.float32]:
        if code_books.shape != (blocks.count, 1 << self.bits):
            raise SchemeError(
                f"{self.name} needs code books of shape {(blocks.count, 1 << self.bits)} for a tensor of shape "
                f"{blocks.shape}, got {code_books.shape}."
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
        blocks: Blocks,
        scale: npt.NDArray[np.float32] | None = None,
    ) -> "ClusterCodes":
        indices = np.empty(rows.shape, np.uint8)
        for book, start in zip(books, range(0, blocks.rows, blocks.rows_each), strict=True):
            part = rows[start : start + blocks.rows_each]
            indices[start : start + blocks.rows_each] = nearest(part.reshape(-1), book).reshape(part.shape)
        return ClusterCodes(blocks.from_rows(indices), books, self, blocks, scale)


@dataclass(frozen=True)
class ClusterCodes(OfBlocks):
    """A tensor as indices into code books.

    Args:
        indices: uint8 in the shape of the tensor.
        code_books: float32 [blocks.count, 2^bits]; `encode` makes them ascending, the last value repeated where there
            are fewer clusters than entries.
        scheme: the hyper-parameters.
        blocks: what shares a code book; `blocks.spread(np.arange(blocks.count))` is each channel's.
        scale: float32 [channels], or None.
    """

    indices: npt.NDArray[np.uint8]
    code_books: npt.NDArray[np.float32]
    scheme: Clusters
    blocks: Blocks
    scale: npt.NDArray[np.float32] | None = None

    def decode(self) -> npt.NDArray[np.float32]:
        """The tensor that a runtime sees, float32, to the bit."""
        if self.blocks.count == 1:
            values = np.take(self.code_books[0], self.indices)
        else:
            firsts = self.blocks.spread(np.arange(self.blocks.count) << self.bits)
            values = self.blocks.from_rows(np.take(self.code_books, self.blocks.to_rows(self.indices) + firsts))
        if self.scale is None:
            return values
        return self.blocks.from_rows(self.blocks.to_rows(values) * self.scale[:, None])

    def decode_with(self, decoder: Decoder[C]) -> C:
        """A look-up in the code books, which stand one after the other in one table."""
        blocks = self.blocks
        chain = decoder.integers(self.indices, self.bits)
        channels = [blocks.rows if axis == blocks.axis else 1 for axis in range(len(self.shape))]
        if blocks.count > 1:
            firsts = blocks.spread(np.arange(blocks.count, dtype=np.int32) << self.bits)
            chain.then("Add", firsts.reshape(channels))
        chain.looked_up(self.code_books.reshape(-1), half=self.scheme.half)
        if self.scale is not None:
            chain.scaled(self.scale.reshape(channels))
        return chain

    def rounded_on(self, x: npt.NDArray[np.floating], *scales: npt.NDArray[np.float32]) -> "ClusterCodes":
        """These codes: the scales beside code books are narrow from the start."""
        return self

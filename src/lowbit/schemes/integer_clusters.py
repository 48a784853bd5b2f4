"""Integer clusters: a tensor as indices into one code book of int8 levels, with a scale per channel.

    x ~ float32(book[index]) * scale[channel]        book: 2^bits whole numbers in -largest..largest

What integer kernels multiply with is `book[index]`, so a network computes in integers with it as it does with evenly
spaced codes; only where a file is loaded do indices cost a Gather. Against a float code book (`schemes.clusters`) a
level moves by at most half of 1/127 of the largest. Gives up: a code book for each channel.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowbit.errors import SchemeError
from lowbit.schemes.blocks import Blocks, Granularity
from lowbit.schemes.clusters import ClusterCodes, Clusters
from lowbit.schemes.codes import C, Decoder, OfBlocks

# What the nodes, names and shapes that decode one tensor to float add to a file, measured on written files.
DECODE_BYTES = 230
SCALE_BYTES = 2


@dataclass(frozen=True)
class IntegerClusters:
    """One code book of 1..8 bits for a tensor, whole numbers all, and a scale per channel.

    Args:
        bits: width of an index.
        largest: level that is farthest from zero, 1 to 127.
    """

    bits: int
    largest: int = 127

    def __post_init__(self) -> None:
        if not (1 <= self.bits <= 8 and 1 <= self.largest <= 127):
            raise SchemeError(
                f"integer clusters have 1 to 8 bits and levels up to 127, not {self.bits} and {self.largest}."
            )

    @property
    def per(self) -> Granularity:
        """What shares a code book."""
        return "tensor"

    @property
    def name(self) -> str:
        """Short name, such as icluster4 or icluster2/levels63."""
        return f"icluster{self.bits}" + (f"/levels{self.largest}" if self.largest < 127 else "")

    @property
    def half_levels(self) -> float:
        """How many levels lie on one side of zero."""
        return ((1 << self.bits) - 1) / 2

    @property
    def floats(self) -> Clusters:
        """The same with levels that are any numbers."""
        return Clusters(self.bits, scaled=True)

    def blocks(self, shape: tuple[int, ...], axis: int = 0) -> Blocks:
        """What shares a code book: all of a tensor of `shape` whose output channel is `axis`."""
        return self.floats.blocks(shape, axis)

    def per_tensor(self) -> "IntegerClusters":
        """The same scheme: its code book is that of the whole tensor."""
        return self

    def with_bits(self, bits: int) -> "IntegerClusters":
        """The same kind of code book, with more or fewer levels."""
        return IntegerClusters(bits, self.largest)

    def stored_bytes(self, shape: tuple[int, ...], axis: int) -> int:
        """Bytes in a file that decodes them to float: codes, code book and scales, and the nodes that do it."""
        size = math.prod(shape)
        scales = shape[axis] if shape else 1
        return -(-size * self.bits // 8) + (1 << self.bits) + scales * SCALE_BYTES + DECODE_BYTES

    def encode(self, x: npt.NDArray[np.floating], axis: int = 0) -> "IntegerClusterCodes":
        """Cluster `x`, round the code book to whole numbers, and take the nearest of them.

        Raises:
            SchemeError: `x` is empty, not floating-point, or holds NaN or infinite values.
        """
        free = self.floats.encode(x, axis)
        assert free.scale is not None
        book, unit = self.whole(free.code_books)
        return self.encode_with(x, book, scale=self.floats.fitting(free.scale * unit), axis=axis)

    def encode_with(
        self,
        x: npt.NDArray[np.floating],
        code_books: npt.NDArray[np.floating],
        *,
        scale: npt.NDArray[np.floating],
        axis: int = 0,
    ) -> "IntegerClusterCodes":
        """The nearest levels of a given code book [1, 2^bits] of whole numbers, with scales [channels]."""
        return self._from(self.floats.encode_with(x, code_books, scale=scale, axis=axis))

    def from_indices(
        self,
        indices: npt.NDArray[np.integer],
        code_books: npt.NDArray[np.floating],
        *,
        scale: npt.NDArray[np.floating] | None,
        axis: int = 0,
    ) -> "IntegerClusterCodes":
        """Indices that were chosen elsewhere, in the shape of the tensor, with a code book [1, 2^bits] and scales.

        Raises:
            SchemeError: an index without an entry, or a code book that does not fit.
        """
        return self._from(self.floats.from_indices(indices, code_books, scale=scale, axis=axis))

    def whole(self, code_books: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.float32], np.float32]:
        """A code book as whole numbers up to `largest`, and what each of them is worth."""
        most = float(np.abs(code_books).max())
        unit = np.float32(most / self.largest) if most > 0 else np.float32(1.0)
        return np.rint(code_books / unit).clip(-self.largest, self.largest).astype(np.float32), unit

    def _from(self, codes: ClusterCodes) -> "IntegerClusterCodes":
        book = codes.code_books[0]
        if not np.array_equal(book, np.rint(book).clip(-self.largest, self.largest)):
            raise SchemeError(f"levels of {self.name} are whole numbers in {-self.largest}..{self.largest}.")
        assert codes.scale is not None
        return IntegerClusterCodes(codes.indices, book.astype(np.int8), codes.scale, self, codes.blocks)


@dataclass(frozen=True)
class IntegerClusterCodes(OfBlocks):
    """A tensor as indices into a code book of whole numbers.

    Args:
        indices: uint8 in the shape of the tensor.
        book: int8 [2^bits], ascending from `encode`.
        scale: float32 [channels].
        scheme: the hyper-parameters.
        blocks: the whole tensor.
    """

    indices: npt.NDArray[np.uint8]
    book: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    scheme: IntegerClusters
    blocks: Blocks

    @property
    def _spread(self) -> npt.NDArray[np.float32]:
        """The scale in a shape that broadcasts against the tensor."""
        return self.scale.reshape([self.blocks.rows if axis == self.axis else 1 for axis in range(len(self.shape))])

    def levels(self) -> npt.NDArray[np.int8]:
        """The whole numbers, in the shape of the tensor."""
        return np.take(self.book, self.indices)

    def levels_with(self, decoder: Decoder[C]) -> C:
        """The same as a look-up of packed indices."""
        return decoder.integers(self.indices, self.bits).looked_up(self.book, half=False)

    def decode(self) -> npt.NDArray[np.float32]:
        """The tensor that a runtime sees, float32, to the bit."""
        return self.levels().astype(np.float32) * self._spread

    def decode_with(self, decoder: Decoder[C]) -> C:
        """The same from packed indices; by way of int32, as `LinearCodes.decode_with` does."""
        return self.levels_with(decoder).cast("int32").cast("float32").scaled(self._spread)

    def rounded_on(self, x: npt.NDArray[np.floating], *scales: npt.NDArray[np.float32]) -> "IntegerClusterCodes":
        """The tensor `x` with the same code book on other scales; of several each channel takes the best."""
        book = self.book.astype(np.float32)[None]
        tried = [self.scheme.encode_with(x, book, scale=scale, axis=self.axis) for scale in scales]
        if len(tried) == 1:
            return tried[0]
        rows = self.blocks.to_rows(x)
        errors = [np.square(self.blocks.to_rows(codes.decode()) - rows).sum(axis=1) for codes in tried]
        best = np.choose(np.argmin(errors, axis=0), scales)
        return self.scheme.encode_with(x, book, scale=best, axis=self.axis)

"""Means and second moments of a layer's input columns, summed up batch by batch.

For inputs x (columns of the layer's matrix) and wanted outputs t, at all positions of all images:

    second = E[(x - E x) (x - E x)^T]    cross = E[(t - E t) (x - E x)^T]    and both means.

Sums are taken around the first batch's mean, so that float32 products do not lose a small variance beside a large
mean, and are accumulated in float64. A layer without bias cannot correct a mean, so its moments are about zero.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.graph.columns import convolution_pads
from lowbit.graph.ops import Layer

HALVES = 2
CACHED = 1 << 20  # bytes of columns that are summed together: all groups at once would go through memory five times
CENTERED_ROWS = 256  # rows of second moments centered at a time: all at once would double the memory

Array = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Moments:
    """What rounding needs to know of a layer's inputs and wanted outputs; groups are convolution groups.

    Attributes:
        second: float32 [groups, columns, columns]; [groups, 0, 0] where only means were asked for.
        cross: float64 [groups, rows, columns]; [groups, rows, 0] likewise.
        input_mean: float64 [groups, columns]; zero if moments are about zero.
        output_mean: float64 [groups, rows]; zero if moments are about zero.
        output_power: second moment of each wanted output, float64 [groups, rows]; zero if it was not asked for.
        positions: number of positions, over all images.
        halves: the same of every other batch, and of the rest: what is fitted to one is judged on the other; empty
            where there was one batch, or only means were asked for.
    """

    second: npt.NDArray[np.float32]
    cross: Doubles
    input_mean: Doubles
    output_mean: Doubles
    output_power: Doubles
    positions: int
    halves: tuple["Moments", ...] = ()


@dataclass(frozen=True)
class Products:
    """Sums over the positions of one batch, or of many, around the first batch's mean.

    Attributes:
        xx: x x^T, [groups, columns, columns].
        tx: t x^T, float64 [groups, rows, columns].
        x: sum of x, float64 [groups, columns].
        t: sum of t, float64 [groups, rows].
        tt: sum of t^2, float64 [groups, rows].
        positions: number of positions.
    """

    xx: Array
    tx: Doubles
    x: Doubles
    t: Doubles
    tt: Doubles
    positions: int

    def add(self, other: "Products") -> "Products":
        """Both together; overwrites this one's arrays."""
        for mine, theirs in (
            (self.xx, other.xx),
            (self.tx, other.tx),
            (self.x, other.x),
            (self.t, other.t),
            (self.tt, other.tt),
        ):
            mine += theirs
        return replace(self, positions=self.positions + other.positions)


@dataclass
class MomentSums:
    """Running sums for one layer, of every other batch apart.

    Attributes:
        centered: moments about the mean, for a layer whose bias can correct it; otherwise about zero.
        with_second: sum second and cross moments too; with very many columns they would not fit in memory.
        with_power: sum the power of the wanted outputs too.
        with_halves: keep the moments of both halves.
    """

    centered: bool = True
    with_second: bool = True
    with_power: bool = True
    with_halves: bool = True
    _shift: tuple[Array, Array] | None = None  # of x and t
    _halves: list[Products] = field(default_factory=list)
    _batches: int = 0

    @property
    def count(self) -> int:
        """Number of positions so far."""
        return sum(half.positions for half in self._halves)

    def add(self, x: Array, t: Array) -> None:
        """Add a batch: input columns x [groups, columns, positions], wanted outputs t [groups, rows, positions]."""
        if self._shift is None:
            self._shift = (
                x.mean(axis=2, keepdims=True) * self.centered,
                t.mean(axis=2, keepdims=True) * self.centered,
            )
        self.merge(self.products(x, t))

    def products(self, x: Array, t: Array) -> Products:
        """What a batch after the first adds to the sums; shapes as in `add`.

        Reads nothing that `merge` writes, so threads can work on different batches.

        Raises:
            ValueError: no batch was added yet.
        """
        if self._shift is None:
            raise ValueError("add the first batch before taking products of others")
        (groups, columns, positions), rows = x.shape, t.shape[1]
        wide = columns if self.with_second else 0
        sums = Products(
            np.empty((groups, wide, wide), x.dtype),
            np.empty((groups, rows, wide)),
            np.empty((groups, columns)),
            np.empty((groups, rows)),
            np.empty((groups, rows)),
            positions,
        )
        step = max(1, CACHED // (x.itemsize * columns * max(1, positions)))
        for part in (slice(first, first + step) for first in range(0, groups, step)):
            here, wanted = x[part] - self._shift[0][part], t[part] - self._shift[1][part]
            if self.with_second:
                transposed = here.transpose(0, 2, 1)
                np.matmul(here, transposed, out=sums.xx[part])
                sums.tx[part] = wanted @ transposed
            sums.x[part] = here.sum(axis=2, dtype=np.float64)
            sums.t[part] = wanted.sum(axis=2, dtype=np.float64)
            sums.tt[part] = np.einsum("grp,grp->gr", wanted, wanted) * self.with_power
        return sums

    def merge(self, products: Products) -> None:
        """Add a batch's products; in another order of batches the sums would differ."""
        if self._batches < (HALVES if self.with_halves and self.with_second else 1):
            self._halves.append(products)
        else:
            half = self._batches % len(self._halves)
            self._halves[half] = self._halves[half].add(products)
        self._batches += 1

    def result(self) -> Moments:
        """The moments of all batches together, and of the halves. Overwrites the sums, so it can be called only once.

        Raises:
            ValueError: no batch was added.
        """
        if self._shift is None or not self._halves:
            raise ValueError("no batch was added")
        if len(self._halves) == 1:
            return self._moments(self._halves[0])
        first, second = self._halves
        total = Products(
            first.xx + second.xx,
            first.tx + second.tx,
            first.x + second.x,
            first.t + second.t,
            first.tt + second.tt,
            first.positions + second.positions,
        )
        return replace(self._moments(total), halves=(self._moments(first), self._moments(second)))

    def _moments(self, sums: Products) -> Moments:
        """Means and moments about them, in the place of the sums."""
        assert self._shift is not None
        xx, tx, x, t, tt = sums.xx, sums.tx, sums.x, sums.t, sums.tt
        for total in (xx, tx, x, t, tt):  # in place: a copy of the second moments would double the memory
            total /= sums.positions
        if not self.centered:
            return Moments(xx, tx, np.zeros_like(x), np.zeros_like(t), tt, sums.positions)
        if self.with_second:
            for group in range(len(x)):
                for start in range(0, len(x[group]), CENTERED_ROWS):
                    rows = slice(start, start + CENTERED_ROWS)
                    xx[group, rows] -= np.outer(x[group, rows], x[group]).astype(np.float32)
                tx[group] -= np.outer(t[group], x[group])
        return Moments(
            xx,
            tx,
            x + self._shift[0][:, :, 0],
            t + self._shift[1][:, :, 0],
            np.maximum(tt - t * t, 0) * self.with_power,
            sums.positions,
        )


@dataclass(frozen=True)
class Targets:
    """Wanted outputs of one batch at the sampled positions.

    Attributes:
        rows: [groups, rows, positions].
        sizes: spatial extents of the whole output.
        keep: indices of the sampled positions, of each image for a convolution; None for all.
        summed: whether these are outputs of the sum behind the layer.
    """

    rows: Array
    sizes: tuple[int, ...]
    keep: Indices | None
    summed: bool = False


def targets(layer: Layer, t: Array, *, share: float, generator: np.random.Generator) -> Targets:
    """The wanted outputs at a random sample of positions; for a convolution, the same ones in each image of the batch.

    Args:
        layer: a layer of the model.
        t: its wanted output, [N, channels, ...], or [..., features] for a matrix product.
        share: share of the positions to sample, above 0; 1 takes all.
        generator: picks the positions.
    """
    sizes = t.shape[2:]
    positions = math.prod(sizes) if _is_convolution(layer) else t.size // layer.out_channels
    keep = None
    if share < 1:
        keep = np.sort(generator.permutation(positions)[: max(1, round(share * positions))])
    return Targets(rows_at(layer, t, keep), sizes, keep)


def rows_at(layer: Layer, t: Array, keep: Indices | None) -> Array:
    """An output at the positions `keep` (None for all), [groups, rows, positions].

    A copy, so that the memory of the whole output can be freed.
    """
    if keep is None:
        return np.array(layer.to_rows(t))
    if not _is_convolution(layer):
        return np.asarray(layer.to_rows(t)[:, :, keep])
    images, channels = t.shape[:2]
    result = np.empty((channels, images, len(keep)), t.dtype)
    for image in range(images):
        np.take(t[image].reshape(channels, -1), keep, axis=1, out=result[:, image], mode="clip")
    return result.reshape(layer.groups, channels // layer.groups, -1)


def columns_at(layer: Layer, x: Array, where: Targets) -> Array:
    """The input columns that the sampled positions are computed from, [groups, columns, positions].

    Only the windows at those positions are copied: copying all would cost more than the products.

    Args:
        layer: a layer of the model.
        x: its input, [N, channels, ...].
        where: the sampled positions.
    """
    if where.keep is None:
        return layer.to_columns(x)
    geometry = layer.geometry
    if geometry is None or not _is_convolution(layer):
        return np.asarray(layer.to_columns(x)[:, :, where.keep])
    pads = convolution_pads(geometry, x.shape[2:])
    images, channels = x.shape[:2]
    places = np.unravel_index(where.keep, where.sizes)
    corners = [place * stride for place, stride in zip(places, geometry.strides, strict=True)]
    offsets = np.unravel_index(np.arange(math.prod(geometry.kernel)), geometry.kernel)
    steps = [offset * dilation for offset, dilation in zip(offsets, geometry.dilations, strict=True)]
    padded = [before + size + after for size, (before, after) in zip(x.shape[2:], pads, strict=True)]
    read = np.ravel_multi_index(
        tuple(step[:, None] + corner[None] for step, corner in zip(steps, corners, strict=True)), padded
    )
    if len(read) == 1 and (*padded,) == x.shape[2:]:
        result = np.empty((channels, images, len(where.keep)), x.dtype)
        for image in range(images):
            np.take(x[image].reshape(channels, -1), read[0], axis=1, out=result[:, image], mode="clip")
        return result.reshape(layer.groups, channels // layer.groups, -1)
    wide = np.zeros((channels, images, *padded), x.dtype)
    inside = [slice(before, before + size) for size, (before, _) in zip(x.shape[2:], pads, strict=True)]
    wide[(slice(None), slice(None), *inside)] = x.swapaxes(0, 1)
    every = read[:, None] + math.prod(padded) * np.arange(images)[:, None]
    taken = np.take(wide.reshape(channels, -1), every.ravel(), axis=1)
    return np.asarray(taken.reshape(layer.groups, channels // layer.groups * len(read), -1))


def _is_convolution(layer: Layer) -> bool:
    return layer.op == "Conv" and layer.geometry is not None

"""Means and second moments of a layer's input columns, summed up batch by batch.

For inputs x (columns of the layer's matrix) and wanted outputs t, at all positions of all images:

    second = E[(x - E x) (x - E x)^T]    cross = E[(t - E t) (x - E x)^T]    and both means.

Sums are taken around the first batch's mean, so that float32 products do not lose a small variance beside a large
mean, and added up in float64. A layer without bias cannot correct a mean: its moments are about zero instead.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.graph.columns import convolution_pads
from lowbit.graph.ops import Layer

ROWS = 256  # of second moments that are centred together: all at once would take as much memory again

Array = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Moments:
    """What rounding needs to know of a layer's inputs and wanted outputs.

    Attributes:
        second: [groups, columns, columns], in single precision; [groups, 0, 0] where only means were asked for.
        cross: [groups, rows, columns].
        input_mean: [groups, columns]; zero if taken about zero.
        output_mean: [groups, rows]; zero if taken about zero.
        positions: how many positions were summed.
    """

    second: npt.NDArray[np.float32]
    cross: Doubles
    input_mean: Doubles
    output_mean: Doubles
    positions: int


@dataclass(frozen=True)
class Products:
    """One batch's share of the sums, around the first batch's mean.

    Attributes:
        xx: x x^T [groups, columns, columns].
        tx: t x^T [groups, rows, columns].
        x: sum of x [groups, columns].
        t: sum of t [groups, rows].
        positions: how many were summed.
    """

    xx: Array
    tx: Array
    x: Doubles
    t: Doubles
    positions: int


@dataclass
class MomentSums:
    """Running sums for one layer; `centred` is whether a bias can take up the mean."""

    centred: bool = True
    joint: bool = True  # without, only means are summed up: second moments of very many columns would fill the memory
    count: int = 0
    _shift_x: Array | None = None
    _shift_t: Array | None = None
    _xx: Any = 0.0
    _tx: Any = 0.0
    _x: Any = 0.0
    _t: Any = 0.0

    def add(self, x: Array, t: Array) -> None:
        """One batch: columns x [groups, columns, positions] and wanted outputs t [groups, rows, positions]."""
        if self._shift_x is None or self._shift_t is None:
            self._shift_x = x.mean(axis=2, keepdims=True) * self.centred
            self._shift_t = t.mean(axis=2, keepdims=True) * self.centred
        self.merge(self.products(x, t))

    def products(self, x: Array, t: Array) -> "Products":
        """What a batch after the first adds: reads nothing that `merge` changes, so threads can share the work."""
        if self._shift_x is None or self._shift_t is None:
            raise ValueError("the first batch must be added before products of others are taken")
        x = x - self._shift_x
        t = t - self._shift_t
        transposed = x.transpose(0, 2, 1) if self.joint else np.empty((len(x), x.shape[2], 0), x.dtype)
        return Products(
            x @ transposed if self.joint else np.empty((len(x), 0, 0), x.dtype),
            t @ transposed,
            x.sum(axis=2, dtype=np.float64),
            t.sum(axis=2, dtype=np.float64),
            x.shape[2],
        )

    def merge(self, products: "Products") -> None:
        """Add a batch's products; always in the same order, or the last bits of the sums differ."""
        if self.count == 0:
            self._xx, self._tx = products.xx.astype(np.float64), products.tx.astype(np.float64)
            self._x, self._t = products.x, products.t
        else:
            self._xx += products.xx
            self._tx += products.tx
            self._x += products.x
            self._t += products.t
        self.count += products.positions

    def result(self) -> Moments:
        """The moments of all batches together; the sums are used up."""
        if self._shift_x is None or self._shift_t is None:
            raise ValueError("no batch was added")
        second, cross, x, t = self._xx, self._tx, self._x, self._t
        for total in (second, cross, x, t):  # in place: a copy of the second moments would take as much again
            total /= self.count
        if not self.joint:
            return Moments(
                second.astype(np.float32), cross, x + self._shift_x[:, :, 0], t + self._shift_t[:, :, 0], self.count
            )
        if not self.centred:
            return Moments(second.astype(np.float32), cross, np.zeros_like(x), np.zeros_like(t), self.count)
        for group in range(len(x)):
            for start in range(0, len(x[group]), ROWS):
                rows = slice(start, start + ROWS)
                second[group, rows] -= np.outer(x[group, rows], x[group])
            cross[group] -= np.outer(t[group], x[group])
        return Moments(
            second.astype(np.float32), cross, x + self._shift_x[:, :, 0], t + self._shift_t[:, :, 0], self.count
        )


@dataclass(frozen=True)
class Targets:
    """Wanted outputs of one batch at the positions that are looked at.

    Attributes:
        rows: [groups, rows, positions].
        sizes: spatial extents of the whole output.
        keep: which positions; None for all.
    """

    rows: Array
    sizes: tuple[int, ...]
    keep: Indices | None


def targets(layer: Layer, t: Array, *, share: float, generator: np.random.Generator) -> Targets:
    """A random `share` of the positions of an output: for a convolution the same places of each image of the batch.

    Args:
        layer: a layer of the model.
        t: its wanted output [N, channels, ...], or [..., features] for a matrix product.
        share: of the positions that are looked at; 1 takes all.
        generator: decides which.
    """
    sizes = t.shape[2:]
    positions = math.prod(sizes) if _is_convolution(layer) else t.size // layer.out_channels
    keep = None
    if share < 1:
        keep = np.sort(generator.permutation(positions)[: max(1, round(share * positions))])
    return Targets(rows_at(layer, t, keep), sizes, keep)


def rows_at(layer: Layer, t: Array, keep: Indices | None) -> Array:
    """An output at some positions, [groups, rows, positions]; a copy, so that the whole of it can be forgotten."""
    if keep is None:
        return np.array(layer.to_rows(t))
    if not _is_convolution(layer):
        return np.asarray(layer.to_rows(t)[:, :, keep])
    images, channels = t.shape[:2]
    result = np.empty((channels, images, len(keep)), t.dtype)
    for at in range(images):
        np.take(t[at].reshape(channels, -1), keep, axis=1, out=result[:, at], mode="clip")
    return result.reshape(layer.groups, channels // layer.groups, -1)


def columns_at(layer: Layer, x: Array, where: Targets) -> Array:
    """The inputs that these positions are computed from, [groups, columns, positions].

    Only the windows that are wanted are copied: all of them would cost more than the products.
    """
    if where.keep is None:
        return layer.to_columns(x)
    geometry = layer.geometry
    if geometry is None or not _is_convolution(layer):
        return np.asarray(layer.to_columns(x)[:, :, where.keep])
    pads = convolution_pads(geometry, x.shape[2:])
    if any(before or after for before, after in pads):
        x = np.pad(x, [(0, 0), (0, 0), *pads])
    images, channels = x.shape[:2]
    places = np.unravel_index(where.keep, where.sizes)
    corners = [place * stride for place, stride in zip(places, geometry.strides, strict=True)]
    offsets = np.unravel_index(np.arange(math.prod(geometry.kernel)), geometry.kernel)
    steps = [offset * dilation for offset, dilation in zip(offsets, geometry.dilations, strict=True)]
    read = np.ravel_multi_index(
        tuple(step[:, None] + corner[None] for step, corner in zip(steps, corners, strict=True)), x.shape[2:]
    )
    result = np.empty((channels, len(read), images, read.shape[1]), x.dtype)
    for at in range(images):
        taken = np.take(x[at].reshape(channels, -1), read.ravel(), axis=1)
        result[:, :, at] = taken.reshape(channels, *read.shape)
    return result.reshape(layer.groups, channels // layer.groups * len(read), -1)


def _is_convolution(layer: Layer) -> bool:
    return layer.op == "Conv" and layer.geometry is not None

"""Means and second moments of a layer's input columns, summed up batch by batch.

For inputs x (columns of the layer's matrix) and wanted outputs t, at all positions of all images:

    second = E[(x - E x) (x - E x)^T]    cross = E[(t - E t) (x - E x)^T]    and both means.

Sums are taken around the first batch's mean, so that float32 products do not lose a small variance beside a large
mean, and added up in float64. A layer without bias cannot correct a mean: its moments are about zero instead.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.graph.columns import convolution_pads
from lowbit.graph.ops import Layer

Array = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What rounding needs to know of a layer's inputs and wanted outputs.

    Attributes:
        second: [groups, columns, columns].
        cross: [groups, rows, columns].
        input_mean: [groups, columns]; zero if taken about zero.
        output_mean: [groups, rows]; zero if taken about zero.
        positions: how many positions were summed.
    """

    second: Doubles
    cross: Doubles
    input_mean: Doubles
    output_mean: Doubles
    positions: int


@dataclass
class MomentSums:
    """Running sums for one layer; `centred` is whether a bias can take up the mean."""

    centred: bool = True
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
        x = x - self._shift_x
        t = t - self._shift_t
        transposed = x.transpose(0, 2, 1)
        self._xx = self._xx + (x @ transposed).astype(np.float64)
        self._tx = self._tx + (t @ transposed).astype(np.float64)
        self._x = self._x + x.sum(axis=2, dtype=np.float64)
        self._t = self._t + t.sum(axis=2, dtype=np.float64)
        self.count += x.shape[2]

    def result(self) -> Moments:
        """The moments of all batches together."""
        if self._shift_x is None or self._shift_t is None:
            raise ValueError("no batch was added")
        second, cross, x, t = (total / self.count for total in (self._xx, self._tx, self._x, self._t))
        if not self.centred:
            return Moments(second, cross, np.zeros_like(x), np.zeros_like(t), self.count)
        second = second - x[:, :, None] * x[:, None, :]
        cross = cross - t[:, :, None] * x[:, None, :]
        return Moments(second, cross, x + self._shift_x[:, :, 0], t + self._shift_t[:, :, 0], self.count)


def sampled(layer: Layer, x: Array, t: Array, *, share: float, generator: np.random.Generator) -> tuple[Array, Array]:
    """Columns of inputs `x` and outputs `t` of one batch, at a random `share` of the positions.

    Args:
        layer: a layer of the model.
        x: its input [N, channels, ...], or [..., features] for a matrix product.
        t: the wanted output at the same images.
        share: of the positions that are looked at; 1 takes all.
        generator: decides which.

    Returns:
        x as [groups, columns, positions], t as [groups, rows, positions].
    """
    if layer.op == "Conv" and layer.geometry is not None:
        return _sampled_convolution(layer, x, t, share, generator)
    columns = layer.to_columns(x)
    outputs = layer.to_rows(t)
    if share < 1:
        keep = np.sort(generator.permutation(columns.shape[2])[: max(1, round(share * columns.shape[2]))])
        columns, outputs = columns[:, :, keep], outputs[:, :, keep]
    return columns, outputs


def _sampled_convolution(
    layer: Layer, x: Array, t: Array, share: float, generator: np.random.Generator
) -> tuple[Array, Array]:
    """The windows that are wanted and no others: copying all of them first would cost more than the products."""
    geometry = layer.geometry
    assert geometry is not None
    sizes = t.shape[2:]
    places = int(np.prod(sizes))
    keep = np.arange(places)
    if share < 1:
        keep = np.sort(generator.permutation(places)[: max(1, round(share * places))])
    images, channels, groups = len(x), x.shape[1], layer.groups
    outputs = (
        t.reshape(images, groups, -1, places)[..., keep].transpose(1, 2, 0, 3).reshape(groups, -1, images * len(keep))
    )
    pads = convolution_pads(geometry, x.shape[2:])
    if any(before or after for before, after in pads):
        x = np.pad(x, [(0, 0), (0, 0), *pads])
    rank = len(sizes)
    at = np.unravel_index(keep, sizes)
    corners = [place * stride for place, stride in zip(at, geometry.strides, strict=True)]
    offsets = np.unravel_index(np.arange(int(np.prod(geometry.kernel))), geometry.kernel)
    steps = [offset * dilation for offset, dilation in zip(offsets, geometry.dilations, strict=True)]
    flat = np.ravel_multi_index(
        tuple(step[:, None] + corner[None] for step, corner in zip(steps, corners, strict=True)), x.shape[2 : 2 + rank]
    )
    # [images, channels, kernel, positions] -> [groups, channels / groups * kernel, images * positions]
    windows = x.reshape(images, channels, -1)[:, :, flat]
    windows = windows.transpose(1, 2, 0, 3)
    return windows.reshape(groups, channels // groups * flat.shape[0], images * len(keep)), outputs

"""A layer as a matrix: `output = matrix @ columns + bias`, per group.

Rows are the output channels of a group, columns the inputs that one output value depends on (channel by channel, within
a channel the kernel positions in row-major order), positions the places where an output is computed, image by image. A
depthwise convolution has one row per channel, with as many columns as its kernel has positions. A transposed
convolution is a plain one over an input with zeros inserted, with the kernel reversed (Dumoulin and Visin 2016, "A
guide to convolution arithmetic", section 4), so that it too has one row per output channel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lowbit.errors import ModelError


@dataclass(frozen=True)
class Geometry:
    """How a kernel moves over its input; every tuple has one entry per spatial axis.

    Args:
        kernel: size.
        strides: step.
        pads: zeros before each axis, then after each axis; ignored unless `auto_pad` is "NOTSET".
        dilations: distance between kernel values.
        auto_pad: "NOTSET", "VALID", "SAME_UPPER" or "SAME_LOWER", as in ONNX.
        output_padding: ConvTranspose only: extra outputs after each axis.
        output_shape: ConvTranspose only: the required output size, which then determines the pads; or empty.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    auto_pad: str = "NOTSET"
    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()

    def extents(self) -> tuple[int, ...]:
        """Input values that the dilated kernel spans, per axis."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True))


def convolution_pads(geometry: Geometry, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros (before, after) per spatial axis, for an input of these sizes."""
    rank = len(geometry.kernel)
    if geometry.auto_pad == "NOTSET":
        return [(geometry.pads[axis], geometry.pads[rank + axis]) for axis in range(rank)]
    if geometry.auto_pad == "VALID":
        return [(0, 0)] * rank
    pads = []
    for size, stride, extent in zip(sizes, geometry.strides, geometry.extents(), strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if geometry.auto_pad == "SAME_UPPER" else (large, small))
    return pads


def convolution_columns(x: np.ndarray, geometry: Geometry, groups: int) -> np.ndarray:
    """Columns of a convolution over `x` [N, C, spatial...], as [groups, C/groups * kernel, N * positions].

    A view for a 1x1 convolution of one image, otherwise a copy.
    """
    pads = convolution_pads(geometry, x.shape[2:])
    if any(before or after for before, after in pads):
        x = np.pad(x, [(0, 0), (0, 0), *pads])
    return _windows(x, geometry, geometry.strides, groups, turned=False)


def transposed_sizes(geometry: Geometry, sizes: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """Output sizes of a transposed convolution, and what it cuts off (before, after) per spatial axis."""
    rank = len(geometry.kernel)
    extras = geometry.output_padding or (0,) * rank
    outputs, cuts = [], []
    for axis, (size, stride, extent, extra) in enumerate(
        zip(sizes, geometry.strides, geometry.extents(), extras, strict=True)
    ):
        full = stride * (size - 1) + extra + extent
        if geometry.output_shape or geometry.auto_pad.startswith("SAME"):
            wanted = geometry.output_shape[axis] if geometry.output_shape else size * stride
            total = max(full - wanted, 0)
            small, large = total // 2, total - total // 2
            cut = (small, large) if geometry.auto_pad == "SAME_UPPER" else (large, small)
            outputs.append(wanted)
        else:
            explicit = geometry.auto_pad == "NOTSET"
            cut = (geometry.pads[axis], geometry.pads[rank + axis]) if explicit else (0, 0)
            outputs.append(full - sum(cut))
        cuts.append(cut)
    return outputs, cuts


def transposed_columns(x: np.ndarray, geometry: Geometry, groups: int) -> np.ndarray:
    """Columns of a transposed convolution over `x` [N, C, spatial...], as `convolution_columns` gives them."""
    sizes = x.shape[2:]
    outputs, cuts = transposed_sizes(geometry, sizes)
    extents = geometry.extents()
    spread = [size + extent - 1 for size, extent in zip(outputs, extents, strict=True)]
    wide = np.zeros((*x.shape[:2], *spread), x.dtype)
    source: list[slice] = []
    target: list[slice] = []
    for size, stride, extent, (before, _), room in zip(sizes, geometry.strides, extents, cuts, spread, strict=True):
        # Input i lands at i * stride + extent - 1 - before, if that is inside.
        start = extent - 1 - before
        first = max(0, -(start // stride)) if start < 0 else 0
        last = min(size, (room - start - 1) // stride + 1)
        source.append(slice(first, last))
        target.append(slice(start + first * stride, start + (last - 1) * stride + 1 if last > first else 0, stride))
    wide[(slice(None), slice(None), *target)] = x[(slice(None), slice(None), *source)]
    return _windows(wide, geometry, (1,) * len(sizes), groups, turned=True)


def _windows(x: np.ndarray, geometry: Geometry, strides: Sequence[int], groups: int, *, turned: bool) -> np.ndarray:
    rank = len(geometry.kernel)
    spatial = tuple(range(2, 2 + rank))
    if any(size < extent for size, extent in zip(x.shape[2:], geometry.extents(), strict=True)):
        raise ModelError(
            f"the padded input of {list(x.shape[2:])} is smaller than the kernel of {list(geometry.extents())}.",
            remedy="Use larger images.",
        )
    view = sliding_window_view(x, geometry.extents(), axis=spatial)
    pick = tuple(slice(None, None, stride) for stride in strides)
    taken = tuple(slice(None, None, -step if turned else step) for step in geometry.dilations)
    view = view[(slice(None), slice(None), *pick, *taken)]
    # [N, C, positions..., kernel...] -> [C, kernel..., N, positions...]
    order = (1, *range(2 + rank, 2 + 2 * rank), 0, *spatial)
    channels = x.shape[1]
    columns = channels // groups * math.prod(geometry.kernel)
    positions = x.shape[0] * math.prod(view.shape[2 : 2 + rank])
    return view.transpose(order).reshape(groups, columns, positions)

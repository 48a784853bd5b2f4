"""What windows need around an image, in terms of LiteRT's SAME and VALID, and how stored tensors grow and shrink."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lowbit.formats.litert.builder import Option
from lowbit.formats.litert.graph import FileGraph, StoredValue, bias_type

SAME, VALID = 0, 1


@dataclass(frozen=True)
class Window:
    """How a kernel moves over one spatial axis.

    Attributes:
        extent: inputs that the dilated kernel spans.
        stride: step.
        before: what is padded in front.
        size: inputs.
        outputs: positions that are computed.
    """

    extent: int
    stride: int
    before: int
    size: int
    outputs: int

    @property
    def needed(self) -> int:
        """What the positions reach beyond the input, on both sides together."""
        return max((self.outputs - 1) * self.stride + self.extent - self.size, 0)

    @property
    def after(self) -> int:
        """What must be padded behind."""
        return max((self.outputs - 1) * self.stride + self.extent - self.size - self.before, 0)

    @property
    def is_valid(self) -> bool:
        """Whether this is VALID padding."""
        fits = self.size >= self.extent
        return self.before == 0 and fits and self.outputs == (self.size - self.extent) // self.stride + 1

    @property
    def is_same(self) -> bool:
        """Whether this is SAME padding: as little as possible, the odd one behind."""
        return self.outputs == -(-self.size // self.stride) and self.before == self.needed // 2


def padded(
    graph: FileGraph, stored: StoredValue, windows: Sequence[Window], *, lowest: bool = False
) -> tuple[StoredValue, int]:
    """A channels-last image with the padding that its windows need beyond LiteRT's own, and which that is.

    Args:
        graph: the graph to write to.
        stored: the image, [N, H, W, C].
        windows: of its two spatial axes.
        lowest: pad with the lowest value (for a maximum) instead of zero.
    """
    if all(window.is_valid for window in windows):
        return stored, VALID
    if all(window.is_same for window in windows):
        return stored, SAME
    amounts = [(0, 0), *((window.before, window.after) for window in windows), (0, 0)]
    return pad(graph, stored, amounts, lowest=lowest), VALID


def pad(
    graph: FileGraph,
    stored: StoredValue,
    amounts: Sequence[tuple[int, int]],
    *,
    lowest: bool = False,
    code: int | None = None,
) -> StoredValue:
    """PAD a stored tensor with zeros (the zero point, for codes), with the lowest value, or with one int8 code."""
    old = graph.tensors[stored.tensor]
    shape = [size + before + after for size, (before, after) in zip(old.shape, amounts, strict=True)]
    result = graph.derived(stored.tensor, shape, batch_axis=old.batch_axis)
    inputs = [stored.tensor, graph.constant(np.array(amounts, np.int32))]
    if code is None and (not lowest or (stored.codes is not None and stored.codes.zero_point == 0)):
        graph.operator("PAD", inputs, [result])
    else:
        value = _filling(graph, stored, code)
        graph.operator("PADV2", [*inputs, value], [result], table="PadV2Options")
    return StoredValue(result, stored.order, stored.codes)


def _filling(graph: FileGraph, stored: StoredValue, code: int | None) -> int:
    """A code in the scale of a stored value, by default the lowest; or the lowest float."""
    if stored.codes is None:
        return graph.constant(np.array([np.finfo(np.float32).min], np.float32))
    half = stored.codes.kind.levels // 2
    scale, dtype = np.array([stored.codes.scale], np.float32), f"int{stored.codes.kind.bits}"
    filling = np.array([-half if code is None else code], dtype)
    return graph.constant(filling, scale=scale, zero_point=stored.codes.zero_point - half)


def cut(
    graph: FileGraph, stored: StoredValue, ranges: dict[int, tuple[int, int]], steps: dict[int, int] | None = None
) -> StoredValue:
    """STRIDED_SLICE of a stored tensor.

    Args:
        graph: the graph to write to.
        stored: the tensor.
        ranges: stored axis -> (first, how many are kept).
        steps: stored axis -> step, 1 where it is not given.
    """
    old = graph.tensors[stored.tensor]
    rank = len(old.shape)
    steps = steps or {}
    begin, end, stride, shape, whole = [0] * rank, list(old.shape), [1] * rank, list(old.shape), (1 << rank) - 1
    for axis, (first, count) in ranges.items():
        step = steps.get(axis, 1)
        last = first + step * (count - 1) + (1 if step > 0 else -1)
        begin[axis], end[axis], stride[axis], shape[axis] = first, last, step, count
        # A mask means: from the start, to the end. Backwards, "before the first" has no other spelling.
        whole &= ~(1 << axis)
    masks = {"beginMask": whole, "endMask": whole | sum(1 << axis for axis in ranges if end[axis] < 0)}
    result = graph.derived(stored.tensor, shape, batch_axis=old.batch_axis)
    inputs = [stored.tensor, *(graph.integers(values) for values in (begin, end, stride))]
    graph.operator("STRIDED_SLICE", inputs, [result], options=masks)
    return StoredValue(result, stored.order, stored.codes, stored.flat)


def ones_convolution(
    graph: FileGraph, x: StoredValue, output: int, kernel: tuple[int, int], strides: tuple[int, int], factor: float
) -> None:
    """A depthwise convolution all of whose weights are `factor`: in integers, codes of 1 with this scale."""
    channels = graph.tensors[x.tensor].shape[3]
    shape = (1, *kernel, channels)
    if x.codes is None:
        weight = graph.constant(np.full(shape, factor, np.float32))
        bias = graph.constant(np.zeros(channels, np.float32))
    else:
        scale = np.array([factor], np.float32)
        weight = graph.constant(np.ones(shape, np.int8), scale=scale, axis=3)
        bias = graph.constant(np.zeros(channels, bias_type(graph.quantized)), scale=scale * np.float32(x.codes.scale))
    options: dict[str, Option] = {"padding": VALID, "strideH": strides[0], "strideW": strides[1], "depthMultiplier": 1}
    read = [x.tensor, weight, bias]
    graph.operator("DEPTHWISE_CONV_2D", read, [output], table="DepthwiseConv2DOptions", options=options)

"""Resize: LiteRT's own two operators where they compute what ONNX asks for, else one GATHER an axis (nearest)."""

import math

import numpy as np
import numpy.typing as npt

from lowbit.formats.litert.graph import CHANNELS_LAST, FileGraph, StoredValue
from lowbit.graph.edit import flag
from lowbit.graph.model import Node

Indices = npt.NDArray[np.int32]

# (align_corners, half_pixel_centers)
CORNERS = {
    "align_corners": (True, False),
    "half_pixel": (False, True),
    "pytorch_half_pixel": (False, True),
    "asymmetric": (False, False),
}


def resize(graph: FileGraph, node: Node) -> None:
    """Resize the two spatial axes of an image, nearest or linear."""
    name = str(node.outputs[0].name)
    if node.inputs[0] is None or len(graph.shape(name)) != 4:
        raise graph.refuse(node, "does not resize images")
    before, after = graph.shape(str(node.inputs[0].name)), graph.shape(name)
    if before[:2] != after[:2]:
        raise graph.refuse(node, "resizes batch or channels")
    attributes = node.attributes
    mode = attributes.get_string("mode", "nearest")
    where = attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if where not in CORNERS or mode not in ("nearest", "linear") or flag(node, "antialias"):
        raise graph.refuse(node, f"resizes by {mode} with {where}, or smooths first")
    x = graph.read(node.inputs[0], order=CHANNELS_LAST, integer=graph.integer(node))
    scales = _scales(graph, node, before, after)
    if mode == "nearest":
        rounding = attributes.get_string("nearest_mode", "round_prefer_floor")
        wanted = [_nearest(before[i], after[i], scales[i - 2], where, rounding) for i in (2, 3)]
        _write_nearest(graph, x, name, before, after, wanted)
        return
    if any(abs(scales[i - 2] * before[i] - after[i]) > 1e-3 for i in (2, 3)):
        raise graph.refuse(node, "has a scale that is not the ratio of its sizes")
    if where == "pytorch_half_pixel" and 1 in after[2:]:
        raise graph.refuse(node, "resizes to a single value with pytorch_half_pixel")
    _write(graph, x, name, "RESIZE_BILINEAR", after, CORNERS[where])


def _write(
    graph: FileGraph, x: StoredValue, name: str, code: str, after: tuple[int, ...], corners: tuple[bool, bool]
) -> None:
    output = graph.write(name, CHANNELS_LAST, codes=x.codes)
    options = {"alignCorners": corners[0], "halfPixelCenters": corners[1]}
    version = 3 if corners[1] else 0
    graph.operator(code, [x.tensor, graph.integers(after[2:])], [output], options=options, version=version)


def _write_nearest(
    graph: FileGraph, x: StoredValue, name: str, before: tuple[int, ...], after: tuple[int, ...], wanted: list[Indices]
) -> None:
    for corners in ((False, False), (False, True), (True, False)):
        if all(np.array_equal(wanted[i - 2], _litert_nearest(before[i], after[i], corners)) for i in (2, 3)):
            _write(graph, x, name, "RESIZE_NEAREST_NEIGHBOR", after, corners)
            return
    for axis, indices in ((1, wanted[0]), (2, wanted[1])):
        old = graph.tensors[x.tensor]
        shape = [*old.shape[:axis], len(indices), *old.shape[axis + 1 :]]
        result = graph.derived(x.tensor, shape)
        graph.operator("GATHER", [x.tensor, graph.constant(indices)], [result], options={"axis": axis})
        x = StoredValue(result, x.order, x.codes)
    graph.adopt(name, x)


def _scales(graph: FileGraph, node: Node, before: tuple[int, ...], after: tuple[int, ...]) -> list[float]:
    """Scale of each spatial axis: as given, or the ratio of the sizes."""
    # The input before the scales is a region of interest, which the modes written here do not read.
    given = graph.array(node.inputs[2]) if len(node.inputs) > 2 else None
    if given is None or given.size == 0:
        return [after[i] / before[i] for i in (2, 3)]
    return [float(scale) for scale in given.reshape(-1)[-2:]]


def _nearest(size: int, count: int, scale: float, where: str, rounding: str) -> Indices:
    """Which input each output takes, by the formulas of ONNX."""
    x = np.arange(count, dtype=np.float32)
    step = np.float32(1 / scale)
    if where == "align_corners":
        # Multiplied before it is divided, as ONNX Runtime does: the last output is the last input, not just before it.
        position = x * np.float32(size - 1) / np.float32(count - 1) if count > 1 else x * 0
    elif where == "asymmetric":
        position = x * step
    else:
        position = (x + np.float32(0.5)) * step - np.float32(0.5)
        if where == "pytorch_half_pixel" and count == 1:
            position = x * 0
    rounded = {
        "floor": np.floor(position),
        "ceil": np.ceil(position),
        "round_prefer_ceil": np.floor(position + 0.5),
        "round_prefer_floor": np.ceil(position - 0.5),
    }[rounding]
    return np.asarray(np.clip(rounded, 0, size - 1), np.int32)


def _litert_nearest(size: int, count: int, corners: tuple[bool, bool]) -> Indices:
    """Which input each output takes, by the formulas of LiteRT."""
    align, half = corners
    step = np.float32((size - 1) / (count - 1)) if align and count > 1 else np.float32(size / count)
    position = (np.arange(count, dtype=np.float32) + np.float32(0.5 if half else 0)) * step
    rounded = [math.floor(value + 0.5) if align else math.floor(value) for value in position.tolist()]
    return np.asarray(np.clip(rounded, 0, size - 1), np.int32)

"""Axes of one entry that are appended to what an integer product gives, kept apart from its scales for OpenVINO.

OpenVINO 2026.4 moves the scales of a product, one for each entry of the last axis, behind the Reshape or Unsqueeze, and
fails there where the last axis is not the last any more: it refuses the file. A Clip that changes no value stops it.
"""

import numpy as np
import onnx_ir as ir

from lowbit.formats.onnx.draft import Draft
from lowbit.graph.edit import constant, is_standard

LARGEST = np.finfo(np.float32).max
LEAST_AXES = 3  # of the product; with two it is right


def write_appended_axes(draft: Draft) -> Draft:
    """Put a Clip that changes nothing before each Reshape or Unsqueeze of floats that appends axes of one entry."""
    graph, names = draft.graph, draft.names
    for node in tuple(graph):
        value = node.inputs[0] if node.inputs else None
        if value is None or node.name in draft.quantized.integer or not draft.quantized.integer or not _appends(node):
            continue
        clip = ir.node("Clip", [value, names.constant(-LARGEST), names.constant(LARGEST)])
        same = clip.outputs[0]
        same.shape, same.type, same.name = value.shape, value.type, names.fresh("m")
        node.replace_input_with(0, same)
        graph.insert_before(node, clip)
    return draft


def _appends(node: ir.Node) -> bool:
    given, made = (value.shape if value is not None else None for value in (node.inputs[0], node.outputs[0]))
    if node.op_type not in ("Reshape", "Unsqueeze") or not is_standard(node) or given is None or made is None:
        return False
    if not LEAST_AXES <= len(given) < len(made) or node.inputs[0] is None or node.inputs[0].dtype != ir.DataType.FLOAT:
        return False
    if node.op_type == "Unsqueeze":
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        return axes is not None and all(int(axis) % len(made) >= len(given) for axis in axes.ravel())
    # The batch may be open, and known by another name behind the Reshape.
    return list(made)[1 : len(given)] == list(given)[1:] and all(size == 1 for size in list(made)[len(given) :])

"""Pads that a convolution or a pooling can do itself.

Zeros around the image are what a convolution pads with, and what an average pool that counts its padding averages over.
A maximum pool pads with the smallest number there is: the same as padding with zeros where no value is negative and
every window sees part of the image.
"""

import numpy as np
import onnx_ir as ir

from lowbit.graph.edit import constant, flag, is_standard

NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Sqrt", "Softplus"})
# Give nothing smaller than the smallest they are given.
KEEP_SIGN = frozenset({"MaxPool", "GlobalAveragePool", "GlobalMaxPool", "Transpose", "Reshape", "Slice", "Identity"})
DEPTH = 8


def fold_pads(model: ir.Model) -> bool:
    """Let convolutions and pools that read a Pad pad by themselves, in place; each reader for itself."""
    changed = False
    for node in model.graph:
        value = node.inputs[0] if node.op_type in ("Conv", "AveragePool", "MaxPool") and node.inputs else None
        pad = value.producer() if value is not None and is_standard(node) else None
        if pad is None or pad.op_type != "Pad" or not is_standard(pad) or (source := pad.inputs[0]) is None:
            continue
        added, fill = _spatial_pads(pad), _fill(pad)
        placed = node.attributes.get_string("auto_pad", "NOTSET")
        if added is None or fill is None or placed not in ("NOTSET", "VALID"):
            continue
        own = [0] * len(added) if placed == "VALID" else list(node.attributes.get_ints("pads", [0] * len(added)))
        if len(own) != len(added) or min(own, default=0) < 0:
            continue
        pads = [a + b for a, b in zip(own, added, strict=True)]
        if not _may_pad(node, source, fill, own, pads):
            continue
        node.attributes.pop("auto_pad", None)
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        if node.op_type == "AveragePool":
            node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        node.replace_input_with(0, source)
        changed = True
    return changed


def _spatial_pads(pad: ir.Node) -> list[int] | None:
    """Pads of the axes behind the first two, as convolutions write them; None if others are padded, or any is cut."""
    pads = constant(pad.inputs[1]) if len(pad.inputs) > 1 else None
    if pads is None or pads.size % 2 or pads.size < 6 or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return None
    before, after = pads.reshape(2, -1).tolist()
    if min(before + after) < 0 or any(before[:2] + after[:2]):
        return None
    return [*before[2:], *after[2:]]


def _fill(pad: ir.Node) -> float | None:
    """What is padded with, if that is one number known."""
    if pad.attributes.get_string("mode", "constant") != "constant":
        return None
    if len(pad.inputs) < 3 or pad.inputs[2] is None:
        return 0.0
    array = constant(pad.inputs[2])
    return float(array.item()) if array is not None and array.size == 1 else None


def _may_pad(node: ir.Node, source: ir.Value, fill: float, own: list[int], pads: list[int]) -> bool:
    if node.op_type == "Conv":
        return fill == 0
    kernel = list(node.attributes.get_ints("kernel_shape", []))
    dilated = any(step != 1 for step in node.attributes.get_ints("dilations", []))
    # Runtimes refuse pools whose padding fills a window.
    within = len(kernel) * 2 == len(pads) and all(pad < size for pad, size in zip(pads, kernel * 2, strict=True))
    if not within or dilated or flag(node, "ceil_mode") or len(node.outputs) > 1:
        return False
    if node.op_type == "AveragePool":
        return fill == 0 and (flag(node, "count_include_pad") or not any(own))
    lowest = fill <= float(np.finfo(np.float32).min)
    return lowest or (fill == 0 and _not_negative(source, DEPTH))


def _not_negative(value: ir.Value, depth: int) -> bool:
    """Whether a tensor certainly holds no negative number."""
    node = value.producer()
    if node is None or depth == 0 or not is_standard(node):
        return False
    if node.op_type == "Clip":
        low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        return low is not None and low.size == 1 and float(low.item()) >= 0
    if node.op_type in NOT_NEGATIVE:
        return True
    parts = node.inputs if node.op_type == "Concat" else node.inputs[:1] if node.op_type in KEEP_SIGN else ()
    return bool(parts) and all(part is not None and _not_negative(part, depth - 1) for part in parts)

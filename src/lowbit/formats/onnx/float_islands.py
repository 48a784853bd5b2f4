"""Layers that compute in float between integers read a pair that ONNX Runtime does not take for theirs.

ONNX Runtime (WeightBiasQuantization, 1.32) rounds the float weight of a Conv, ConvTranspose or Gemm to int8, with one
scale for the whole tensor, where its input comes from a DequantizeLinear and its output goes to a QuantizeLinear. Of a
depthwise layer that a rule keeps in float, because its channels differ too much for one scale, nothing is left then:
the answers of a MobileNetV2 were noise. The rewrite asks that the input has one scale; so these layers read the codes
through a DequantizeLinear of their own, with the same scale once for each channel, spread while the file is loaded.
"""

import numpy as np
import onnx_ir as ir

from lowbit.formats.onnx.draft import Draft

ROUNDED = ("Conv", "ConvTranspose", "Gemm")


def write_float_islands(draft: Draft) -> Draft:
    """Give layers in float that read codes a DequantizeLinear that keeps their weights as they are.

    All QuantizeLinear and DequantizeLinear nodes must be in place.
    """
    integer = draft.quantized.integer
    own: dict[tuple[str | None, int, int], ir.Value] = {}
    for node in tuple(draft.graph):
        if node.op_type not in ROUNDED or node.domain not in ("", "ai.onnx") or node.name in integer:
            continue
        read = node.inputs[0]
        pair = None if read is None else read.producer()
        if pair is None or pair.op_type != "DequantizeLinear" or not _has_one_scale(pair):
            continue
        axis, channels = _channels(node)
        key = pair.outputs[0].name, axis, channels
        if key not in own:
            own[key] = _alone(draft, pair) if channels == 1 else _spread(draft, pair, axis, channels)
        node.replace_input_with(0, own[key])
    return draft


def _has_one_scale(pair: ir.Node) -> bool:
    scale = pair.inputs[1]
    return scale is not None and scale.const_value is not None and scale.const_value.size == 1


def _channels(node: ir.Node) -> tuple[int, int]:
    """The axis of what a layer reads along which its weight sums, and how many values there are."""
    weight = node.inputs[1]
    assert weight is not None
    shape = [int(size) for size in weight.shape or () if isinstance(size, int)]
    if node.op_type == "Gemm":
        turned = node.attributes.get_int("transB", 0)
        return int(not node.attributes.get_int("transA", 0)), shape[1 if turned else 0]
    if node.op_type == "ConvTranspose":
        return 1, shape[0]
    return 1, shape[1] * node.attributes.get_int("group", 1)


def _spread(draft: Draft, pair: ir.Node, axis: int, channels: int) -> ir.Value:
    """What a DequantizeLinear gives, from one with a scale for each channel."""
    names = draft.names
    count = names.constant(np.array([channels]))
    wide = [ir.node("Expand", [value, count]) for value in pair.inputs[1:] if value is not None]
    for node in wide:
        node.outputs[0].name = names.fresh("s")
    inputs = [pair.inputs[0], *(node.outputs[0] for node in wide)]
    return _placed(draft, pair, [*wide, ir.node("DequantizeLinear", inputs, {"axis": axis}, domain=pair.domain)])


def _alone(draft: Draft, pair: ir.Node) -> ir.Value:
    """What a DequantizeLinear of one channel gives, where a scale for each would again be one."""
    lowest = draft.names.constant(np.float32(np.finfo(np.float32).min))
    return _placed(draft, pair, [ir.node("Clip", [pair.outputs[0], lowest])])


def _placed(draft: Draft, pair: ir.Node, new: list[ir.Node]) -> ir.Value:
    draft.graph.insert_after(pair, new)
    output = new[-1].outputs[0]
    output.name = draft.names.fresh("d")
    output.shape, output.dtype = pair.outputs[0].shape, ir.DataType.FLOAT
    return output

"""Old operator sets and other float types -> those that the rest of lowbit is written for."""

import numpy as np
import onnx
import onnx_ir as ir

from lowbit.errors import ModelError
from lowbit.graph.weights import WEIGHT_INPUTS

TARGET_OPSET = 13
OTHER_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def to_supported_opset(proto: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """Convert operator sets before 13 to 13, and leave newer ones as they are.

    Raises:
        ModelError: onnx has no conversion for one of the operators.
    """
    opset = next(entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if opset.version < TARGET_OPSET:
        try:
            proto = onnx.version_converter.convert_version(proto, TARGET_OPSET)
        except Exception as error:  # ConvertError, or RuntimeError from the C++ side
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ModelError(
                f"operator set {opset.version} cannot be converted to {TARGET_OPSET}: {first.strip()}",
                where=source,
                remedy=f"Export it again with opset_version={TARGET_OPSET} or later.",
            ) from error
    proto.ir_version = max(proto.ir_version, onnx.helper.find_min_ir_version_for(proto.opset_import, True))
    return proto


def to_float32(model: ir.Model) -> None:
    """Turn a float16, bfloat16 or float64 network into float32, inputs and outputs included, in place.

    float64 constants in a float32 network (shape arithmetic of some exporters) stay as they are.
    """
    read = {"BatchNormalization": (1, 2), **WEIGHT_INPUTS}
    weights = {
        _stored_type(node.inputs[index])
        for node in model.graph.all_nodes()
        for index in read.get(node.op_type, ())
        if index < len(node.inputs)
    }
    replaced = weights & OTHER_FLOATS
    if not replaced:
        return
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in (*graph.inputs, *graph.initializers.values()):
            _convert_value(value, replaced)
    for node in model.graph.all_nodes():
        for output in node.outputs:
            _convert_value(output, replaced)
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in replaced:
                node.attributes[name] = ir.AttrTensor(name, _float32(attribute.as_tensor()))
            elif name in ("to", "dtype", "output_dtype") and attribute.value in {
                int(dtype) for dtype in replaced if dtype is not None
            }:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))


def _stored_type(value: ir.Value | None) -> ir.DataType | None:
    """The type of an initializer, or of what a Constant node holds that is an array; None for others."""
    maker = value.producer() if value is not None else None
    attribute = maker.attributes.get("value") if maker is not None and maker.op_type == "Constant" else None
    if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
        tensor: ir.TensorProtocol | None = attribute.as_tensor()
    else:
        tensor = value.const_value if value is not None and value.is_initializer() else None
    return tensor.dtype if tensor is not None and len(tensor.shape) > 0 else None


def _convert_value(value: ir.Value, replaced: set[ir.DataType | None]) -> None:
    if value.dtype in replaced:
        value.dtype = ir.DataType.FLOAT
    if value.const_value is not None and value.const_value.dtype in replaced:
        value.const_value = _float32(value.const_value)


def _float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    with np.errstate(over="ignore"):
        return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)

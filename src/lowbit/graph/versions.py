"""Old operator sets and other float types -> those that the rest of lowbit is written for."""

import numpy as np
import onnx
import onnx_ir as ir

from lowbit.errors import ModelError

TARGET_OPSET = 13
OTHER_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
WEIGHT_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"})


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
    weights = {
        value.dtype
        for node in model.graph.all_nodes()
        if node.op_type in WEIGHT_OPERATORS
        for value in node.inputs
        if value is not None and value.is_initializer()
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


def _convert_value(value: ir.Value, replaced: set[ir.DataType | None]) -> None:
    if value.dtype in replaced:
        value.dtype = ir.DataType.FLOAT
    if value.const_value is not None and value.const_value.dtype in replaced:
        value.const_value = _float32(value.const_value)


def _float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    with np.errstate(over="ignore"):
        return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)

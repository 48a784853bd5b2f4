"""Old operator sets -> the one that the rest of lowbit is written for."""

import onnx

from lowbit.errors import ModelError

TARGET_OPSET = 13


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

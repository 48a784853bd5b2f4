"""Conversions between float32 and float16 as models: runtimes use instructions for them that numpy does not."""

from onnx import TensorProto, helper

OPSET, IR_VERSION = 13, 8


def conversion(*, to_half: bool) -> bytes:
    """A file that turns a float32 tensor of any shape into a float16 one, rounded to even, or the other way round."""
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16) if to_half else (TensorProto.FLOAT16, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=kinds[1])],
        "conversion",
        [helper.make_tensor_value_info("x", kinds[0], None)],
        [helper.make_tensor_value_info("y", kinds[1], None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())

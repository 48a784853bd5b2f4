"""What is said of a file whose network is fine."""

import onnx
import pytest
from onnx import helper

import lowbit
import networks


@pytest.mark.parametrize(("version", "said"), [(3, False), (8, True)])
def test_weights_among_the_inputs_are_remarked_upon(version, said):
    proto = networks.residual_network()
    assert lowbit.load(proto).remarks == ()
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    proto.ir_version = version
    model = lowbit.load(proto)
    assert [text.split(" of ")[0] for text in model.remarks] == [
        f"The file lists {len(proto.graph.initializer)}"
    ] * said
    quantized = lowbit.quantize(model, "linear4")
    assert quantized.notes == model.remarks
    written = onnx.load_from_string(quantized.to_bytes())
    assert len(written.graph.input) == 1

"""Files are run once before they are handed over."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lowbit
import networks
from graphs import make, make_node
from lowbit.errors import ModelError
from lowbit.quantization import trial
from lowbit.quantization.trial import check_runs

INNER = ("c", "r", "s1", "d", "e", "s2")


def detector(noted=None):
    """Scores at two strides, for images of any size; inner shapes noted, if at all, as if all had the image's size."""
    rng = np.random.default_rng(0)
    nodes = [
        make_node("Conv", "x w", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        make_node("Relu", "c", "r"),
        make_node("Conv", "r v", "s1"),
        make_node("Sigmoid", "s1", "y1"),
        make_node("Conv", "r u", "d", pads=[1, 1, 1, 1], strides=[2, 2]),
        make_node("Relu", "d", "e"),
        make_node("Conv", "e v", "s2"),
        make_node("Sigmoid", "s2", "y2"),
        make_node("Conv", "e v", "y3"),
    ]
    weights = {
        "w": rng.standard_normal((8, 3, 3, 3)) / 4,
        "v": rng.standard_normal((2, 8, 1, 1)) / 3,
        "u": rng.standard_normal((8, 8, 3, 3)) / 6,
    }
    outputs = {name: ["n", 2, "h", "w"] for name in ("y1", "y2", "y3")}
    proto = make(nodes, {"x": ["n", 3, "h", "w"]}, outputs, weights)
    return note(proto, INNER) if noted else proto


def note(proto, names):
    for name in names:
        channels = 2 if name.startswith("s") else 8
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "h", "w"]))
    return proto


def images(count=40):
    return np.random.default_rng(1).standard_normal((count, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("noted", [False, True])
@pytest.mark.parametrize("to", [None, "openvino"])
def test_sizes_noted_by_an_exporter_are_not_believed(noted, to):
    model = lowbit.load(detector(noted))
    for steps in ((), None):
        quantized = lowbit.quantize(model, "int8", calibration=images(), steps=steps, effort="fast")
        form = lowbit.FileForm(to=to)
        check_runs(model, quantized.to_bytes(form), form)


def test_a_file_that_does_not_run_is_refused():
    model = lowbit.load(detector())
    proto = onnx.load_from_string(lowbit.quantize(model, "int8", calibration=images(), steps=()).to_bytes())
    note(proto, INNER)
    with pytest.raises(ModelError, match="does not run for x 1x3x32x32"):
        check_runs(model, proto.SerializeToString(), lowbit.FileForm())


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("to", ["onnx", "openvino", "litert"])
def test_every_form_is_fed_what_it_takes(kind, to):
    import dataclasses

    model = dataclasses.replace(lowbit.load(networks.residual_network()), preprocessing=lowbit.Preprocessing(16, 16))
    form = lowbit.FileForm(to=to, input=kind)
    quantized = lowbit.quantize(model, "int8", calibration=networks.inputs(8), steps=())
    check_runs(model, quantized.to_bytes(form), form)


def test_what_the_float_model_does_not_run_either_is_not_held_against_the_file():
    nodes = [make_node("MatMul", "x w", "h"), make_node("Reshape", "h shape", "y")]
    weights = {"w": np.eye(7), "shape": np.array([1, 7 * 11])}
    model = lowbit.load(make(nodes, {"x": ["rows", 7]}, {"y": [1, 77]}, weights))
    check_runs(model, lowbit.quantize(model, "linear8").to_bytes(), lowbit.FileForm())


def test_inputs_of_gigabytes_are_not_drawn(monkeypatch):
    """A file of a few kilobytes may say that its input has any size."""
    proto = networks.residual_network()
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 1 << 40
    del proto.graph.value_info[:]
    model = lowbit.load(
        proto,
        input_sizes={"x": tuple(dim.dim_value or None for dim in proto.graph.input[0].type.tensor_type.shape.dim)},
    )
    monkeypatch.setattr(trial, "open_session", lambda *_, **__: pytest.fail("it is run"))
    check_runs(model, model.to_bytes(), lowbit.FileForm())
    with pytest.raises(ModelError, match="too large"):
        trial.made_up_inputs(model, 1)
    monkeypatch.setattr(trial, "MOST_NUMBERS", 100)
    small = lowbit.load(networks.residual_network())
    check_runs(small, small.to_bytes(), lowbit.FileForm())
    monkeypatch.undo()
    check_runs(small, small.to_bytes(), lowbit.FileForm())


def test_an_output_that_is_named_twice_is_one(tmp_path):
    """Runtimes take such files."""
    proto = networks.residual_network()
    proto.graph.output.append(proto.graph.output[0])
    model = lowbit.load(proto)
    assert [output.name for output in model.outputs] == ["logits"]
    quantized = lowbit.quantize(model, "int8", calibration=networks.inputs(6), steps=())
    check_runs(model, quantized.to_bytes(), lowbit.FileForm())

"""Softmax over channels behind integers: three operators that ONNX Runtime runs faster, and the same answers."""

import numpy as np
import onnx
import pytest

import lowbit
import networks
from graphs import make, make_node
from lowbit.engines import open_session
from lowbit.formats.file_form import OPENVINO, FileForm
from lowbit.formats.onnx import softmaxes


def network(axis, *, gain=1.0, opset=17):
    weight = gain * np.random.default_rng(0).normal(size=(6, 3, 3, 3)).astype(np.float32)
    nodes = [make_node("Conv", "x w", "a", name="conv"), make_node("Softmax", "a", "y", axis=axis, name="softmax")]
    return lowbit.load(make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], {"w": weight}, opset=opset))


def quantized(model, recipe="int8"):
    data = lowbit.open_images([image[:, :8, :8] for image in networks.inputs(16)], None, values="model")
    return lowbit.quantize(model, recipe, calibration=data, steps=[])


def operators(content):
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


def answers(content, engine="onnxruntime"):
    x = networks.inputs(4, seed=3)[:, :, :8, :8]
    (answer,) = open_session(content, threads=1, engine=engine).run({"x": np.ascontiguousarray(x)}).values()
    return answer


@pytest.mark.parametrize("axis", [1, -3, 2])
def test_sums_over_values_that_lie_apart_are_written_out(axis, monkeypatch):
    made = quantized(network(axis))
    content = made.to_bytes()
    monkeypatch.setattr(softmaxes, "LARGEST", 0.0)
    kept = made.to_bytes()
    assert ("Softmax" in operators(content), "Softmax" in operators(kept)) == (False, True)
    for engine in ("onnxruntime", "openvino"):
        np.testing.assert_allclose(answers(content, engine), answers(kept, engine), rtol=1e-5, atol=1e-7)


def test_openvino_keeps_its_own():
    assert "Softmax" in operators(quantized(network(1)).to_bytes(FileForm(to=OPENVINO)))


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        (network(-1), "int8"),  # values of a sum lie side by side
        (network(1, gain=20.0), "int8"),  # exp could overflow
        (network(1), "linear8"),  # floats have no end
        (network(1, opset=12), "int8"),  # another Softmax: over all axes from this one on
    ],
)
def test_others_stay(model, recipe):
    assert "Softmax" in operators(quantized(model, recipe).to_bytes())

"""Groups that are merged for a kernel's sake: the same bits, and the same weights read back."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lowbit
from graphs import make, make_node, relative_error, run
from lowbit.engines import installed_engines
from lowbit.formats.onnx import wider_groups
from lowbit.formats.opening import file_weights

SIDE = 6


def network(groups, inputs, outputs, *, axes=2, kernel=3, bias=True):
    """A convolution, one in groups that read and give so many channels each, and a mean."""
    rng = np.random.default_rng([groups, inputs, outputs])

    def normal(*shape):
        return rng.normal(scale=np.sqrt(2 / np.prod(shape[1:])), size=shape).astype(np.float32)

    channels = groups * inputs
    weights = {"w1": normal(channels, 4, *[1] * axes), "w2": normal(groups * outputs, inputs, *[kernel] * axes)}
    weights |= {"b2": rng.normal(size=groups * outputs).astype(np.float32)} if bias else {}
    pads = [kernel // 2] * 2 * axes
    nodes = [
        make_node("Conv", "x w1", "c", name="first"),
        make_node("Conv", "c w2 b2" if bias else "c w2", "d", name="grouped", group=groups, pads=pads),
        make_node("GlobalAveragePool", "d", "y"),
    ]
    return make(nodes, {"x": ["n", 4, *[SIDE] * axes]}, ["y"], weights)


def quantized(proto, recipe="int8", axes=2):
    x = np.random.default_rng(3).normal(size=(12, 4, *[SIDE] * axes)).astype(np.float32)
    return lowbit.quantize(lowbit.load(proto), recipe, calibration=list(x), effort="fast", steps=()), x


def groups_of(content):
    node = next(node for node in onnx.load_from_string(content).graph.node if node.name == "grouped")
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def as_given(made, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(wider_groups, "WIDTH", 1)
        return made.to_bytes()


CASES = {
    "16 groups of 4": ((16, 4, 4), {}, 4),
    "as many as it takes": ((6, 3, 5), {}, 1),
    "a prime": ((7, 4, 4), {}, 1),
    "wide already": ((2, 16, 8), {}, 2),
    "depthwise": ((24, 1, 1), {}, 24),
    "two outputs for each channel": ((32, 1, 2), {}, 2),
    "one kernel": ((8, 4, 4), {"kernel": 1}, 2),
    "lines": ((8, 4, 4), {"axes": 1}, 2),
    "volumes": ((8, 4, 4), {"axes": 3}, 2),
    "no bias": ((8, 4, 4), {"bias": False}, 2),
}


@pytest.mark.parametrize("recipe", ["int8", "int4"])
@pytest.mark.parametrize("name", CASES)
def test_answers_and_weights_are_those_of_the_groups_that_were_given(name, recipe, monkeypatch, tmp_path):
    shape, how, count = CASES[name]
    made, x = quantized(network(*shape, **how), recipe, how.get("axes", 2))
    before, after = as_given(made, monkeypatch), made.to_bytes()
    assert groups_of(before) == shape[0]
    assert groups_of(after) == count
    np.testing.assert_array_equal(run(after, x, "onnxruntime"), run(before, x, "onnxruntime"))
    path = tmp_path / "wide.onnx"
    path.write_bytes(after)
    assert file_weights(path)["grouped"].shape == (
        shape[0] * shape[2],
        shape[1],
        *[how.get("kernel", 3)] * how.get("axes", 2),
    )
    (tmp_path / "narrow.onnx").write_bytes(before)
    for name, weight in file_weights(tmp_path / "narrow.onnx").items():
        np.testing.assert_array_equal(file_weights(path)[name], weight)


def test_openvino_reads_the_file_too():
    if "openvino" not in installed_engines():
        pytest.skip("openvino is not installed")
    made, x = quantized(network(16, 4, 4))
    assert relative_error(run(made.to_bytes(), x, "openvino"), run(made.to_bytes(), x, "onnxruntime")) < 0.02


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 3))
def test_merged_groups_divide_all_and_are_no_wider_than_they_must_be(groups, inputs, outputs):
    merged = wider_groups._merged(groups, outputs, inputs)
    assert groups % merged == 0
    fewer = [count for count in range(1, merged) if groups % count == 0]
    assert all(count * inputs < wider_groups.WIDTH for count in fewer)
    assert merged == groups or merged * inputs >= wider_groups.WIDTH or inputs == outputs == 1

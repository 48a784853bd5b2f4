"""Times of layers: whose a kernel is, and that a real profile can be read."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node
from lowbit.measurement.layer_times import attributed, layer_times, layers_by_name


@pytest.fixture(scope="module")
def model():
    nodes = [
        make_node("Conv", "x w", "conv_out", name="conv", pads=[1, 1, 1, 1]),
        make_node("Relu", "conv_out", "act_out", name="act"),
        make_node("MaxPool", "act_out", "pooled", name="pool", kernel_shape=[2, 2]),
        make_node("Conv", "pooled v", "a", name="conv_1", pads=[1, 1, 1, 1]),
        make_node("Add", "a pooled", "sum", name="sum"),
        make_node("Relu", "sum", "y", name="last"),
    ]
    weights = {name: np.ones((4, channels, 3, 3), np.float32) for name, channels in (("w", 3), ("v", 4))}
    return lowbit.load(make(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}, weights))


def test_a_layer_owns_its_activation_function_and_nothing_else(model):
    owners = layers_by_name(model)
    assert {name for name, owner in owners.items() if owner == "conv"} == {"conv", "act", "conv_out", "act_out"}
    assert {name for name, owner in owners.items() if owner == "conv_1"} == {"conv_1", "a"}
    assert set(owners.values()) == {"conv", "conv_1"}


def test_kernels_are_known_by_any_name_that_the_runtime_gives_them(model):
    owners = layers_by_name(model)
    kernels = {"act_out_nchwc": 5.0, "conv_token_12": 1.0, "conv_1_quant": 2.0, "fused conv": 3.0, "sum": 4.0}
    times = attributed(kernels, owners)
    assert times is not None
    assert times.layers == {"conv": 9.0, "conv_1": 2.0}
    assert times.other == 4.0


def test_times_without_names_are_not_guessed(model):
    assert attributed({"a1": 9.0, "conv": 1.0}, layers_by_name(model)) is None
    assert attributed({}, layers_by_name(model)) is None


def test_a_real_profile(model, tmp_path):
    file = tmp_path / "net.onnx"
    file.write_bytes(model.to_bytes())
    inputs = {"x": np.ones((1, 3, 8, 8), np.float32)}
    found = layer_times({"a": file, "b": file}, {"a": inputs, "b": inputs}, model, threads=1)
    assert list(found) == ["a", "b"]
    for times in found.values():
        assert set(times.layers) == {"conv", "conv_1"}
        assert all(time > 0 for time in times.layers.values())
        assert times.other >= 0
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]

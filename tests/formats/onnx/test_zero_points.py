"""Zero points that biases hold: the same answers, and none moved that something else needs."""

import dataclasses

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
import networks
from graphs import change_weights, make, make_node, relative_error, run
from lowbit.engines import installed_engines
from lowbit.formats.onnx import write as writer
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.onnx.zero_points import without_zero_points

SIDE = 8


def quantized(proto, x):
    model = lowbit.load(proto)
    return lowbit.quantize(model, "int8", calibration=lowbit.open_images(list(x), None), steps=()).graph


def written_without(encoded, monkeypatch):
    """The file as it would be with its zero points."""
    with monkeypatch.context() as patched:
        patched.setattr(writer, "INTEGER_REWRITES", {"onnx": ()})
        return to_onnx(encoded)


def points(encoded):
    return {name: codes.zero_point for name, codes in encoded.activations.items()}


def network(layers, outputs=("y",), *, seed=0):
    """Convolutions and sums.

    Args:
        layers: by name, ("Conv", source, padding, size of the weights) or ("Add", source, source).
        outputs: names of the graph's outputs.
    """
    generator = np.random.default_rng(seed)
    nodes, weights = [], {}
    for name, (op, source, *rest) in layers.items():
        if op == "Add":
            nodes.append(make_node("Add", " ".join([source, *rest]), name))
            continue
        pad, size = rest
        kernel = 3 if pad else 1
        weights[f"{name}.w"] = generator.normal(scale=size / (2 * kernel), size=(4, 4, kernel, kernel))
        weights[f"{name}.b"] = size * generator.normal(scale=0.5, size=4)
        how = {"kernel_shape": [kernel] * 2, "pads": [pad] * 4}
        nodes.append(make_node("Conv", f"{source} {name}.w {name}.b", name, **how))
    shape = ["n", 4, SIDE, SIDE]
    return make(nodes, {"x": shape}, dict.fromkeys(outputs, shape), weights, opset=13)


def images(count=16, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 4, SIDE, SIDE)).astype(np.float32)


def test_residual_streams_lose_their_zero_points_and_answer_the_same(monkeypatch):
    x = networks.inputs(48)
    proto = networks.residual_network(first=16)
    encoded = quantized(proto, x)
    moved = without_zero_points(encoded)
    before, after = points(encoded), points(moved)
    assert before["narrow"] > 0
    assert before["sum"] > 0
    assert after["narrow"] == after["sum"] == 0
    assert after["x"] == before["x"] > 0  # what reads it pads
    expected = run(encoded.model.to_bytes(), x)
    old, new = run(written_without(encoded, monkeypatch), x), run(to_onnx(encoded), x)
    # Codes of the branch moved by half a step at the most: the difference is a part of what rounding does anyway.
    assert relative_error(new, expected) < 1.2 * relative_error(old, expected) + 0.002
    assert relative_error(new, old) < relative_error(old, expected)
    if "openvino" in installed_engines():
        assert (
            relative_error(run(to_onnx(encoded), x, "openvino"), expected) < 1.2 * relative_error(old, expected) + 0.002
        )


def test_without_sums_the_codes_are_the_same(monkeypatch):
    encoded = quantized(
        network({"a": ("Conv", "x", 1, 1), "b": ("Conv", "a", 0, 1), "y": ("Conv", "b", 0, 1)}), images()
    )
    assert points(without_zero_points(encoded))["a"] == points(without_zero_points(encoded))["b"] == 0
    old, new = run(written_without(encoded, monkeypatch), images(64)), run(to_onnx(encoded), images(64))
    step = encoded.activations["y"].scale
    codes = np.rint((new - old) / step)
    # Where rounding was a tie a code is one off, and what the next layers make of that.
    assert np.abs(codes).max() <= 4
    assert (codes != 0).mean() < 0.01


@pytest.mark.parametrize(
    ("layers", "outputs", "kept"),
    [
        ({"a": ("Conv", "x", 1, 1), "y": ("Conv", "a", 1, 1)}, ("y",), {"a"}),
        ({"a": ("Conv", "x", 1, 1), "y": ("Conv", "a", 0, 1)}, ("y", "a"), {"a"}),
        (
            # Neither operand of the last sum can make up for the other, so no sum before it moves either.
            {
                "a": ("Conv", "x", 1, 1), "b": ("Conv", "x", 1, 1), "s": ("Add", "a", "b"),
                "c": ("Conv", "a", 0, 1), "d": ("Conv", "b", 0, 1), "t": ("Add", "c", "d"), "y": ("Add", "s", "t"),
            },
            ("y",),
            {"a", "b", "c", "d", "s", "t"},
        ),
        ({"a": ("Conv", "x", 1, 1), "s": ("Add", "a", "a"), "y": ("Conv", "s", 0, 1)}, ("y",), {"a", "s"}),
    ],
    ids=["padded", "output", "sums of sums", "twice"],
)  # fmt: skip
def test_what_something_else_needs_stays(layers, outputs, kept):
    encoded = quantized(network(layers, outputs), images())
    before, after = points(encoded), points(without_zero_points(encoded))
    assert {name for name in layers if name != "y" and after[name]} == kept
    assert all(before[name] == after[name] for name in kept)


def test_a_bias_that_cannot_hold_it_stays(monkeypatch):
    """A channel whose weights are nearly zero: its bias counts in tiny units, of which a step takes too many."""
    proto = network({"a": ("Conv", "x", 1, 1), "b": ("Conv", "a", 0, 1), "y": ("Conv", "b", 0, 1)})
    change_weights(proto, 0, {"b.w": 1e-9, "b.b": 1e-9})
    encoded = quantized(proto, images())
    moved = without_zero_points(encoded)
    assert points(moved)["b"] == points(encoded)["b"] > 0
    assert points(moved)["a"] == 0
    assert max(np.abs(bias.codes.astype(np.int64)).max() for bias in moved.biases.values()) <= 2**29
    assert (
        relative_error(run(to_onnx(encoded), images(32)), run(written_without(encoded, monkeypatch), images(32))) < 0.01
    )


@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 99))
def test_any_network_of_convolutions_and_sums_stays_as_near_to_float(data, seed):
    layers, readable = {"t0": ("Conv", "x", 1, 1.0)}, ["t0"]
    for index in range(1, data.draw(st.integers(2, 7), "layers")):
        name, source = f"t{index}", data.draw(st.sampled_from(readable), "source")
        if data.draw(st.booleans(), "sum"):
            layers[name] = ("Add", source, data.draw(st.sampled_from(readable), "other"))
        else:
            layers[name] = (
                "Conv",
                source,
                data.draw(st.integers(0, 1), "pad"),
                data.draw(st.sampled_from([0.05, 1, 4])),
            )
        readable.append(name)
    last = readable[-1]
    encoded = quantized(network(layers, (last,), seed=seed), images())
    x = images(32, seed=2)
    expected = run(encoded.model.to_bytes(), x)
    with pytest.MonkeyPatch.context() as patched:
        old = run(written_without(encoded, patched), x)
    new = run(to_onnx(encoded), x)
    assert relative_error(new, expected) < 1.5 * relative_error(old, expected) + 0.005
    moved = without_zero_points(encoded)
    assert all(0 <= codes.zero_point <= 255 for codes in moved.activations.values())
    assert dataclasses.replace(moved, activations=encoded.activations, biases=encoded.biases) == encoded


def test_weight_only_files_have_nothing_to_move():
    encoded = lowbit.quantize(lowbit.load(networks.residual_network()), "linear4").graph
    assert without_zero_points(encoded).activations == {}
    onnx.checker.check_model(onnx.load_from_string(to_onnx(encoded)))

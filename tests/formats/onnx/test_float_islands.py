"""Layers in float between integers keep their weights.

ONNX Runtime would round them with one scale for all channels.
"""

import numpy as np
import onnxruntime
import pytest

import lowbit
from graphs import make, make_node, run
from lowbit.engines import installed_engines

rng = np.random.default_rng(8)
# Channels of the tensor in front of the layer, in both of two groups; its weights make good for them.
REACH = np.tile(np.geomspace(0.01, 1, 4), 2)
PADS = {"pads": [1] * 4}


def normal(*shape, axis=0, scale=1.0):
    """Weights with a scale along one axis."""
    other = [dimension for dimension in range(len(shape)) if dimension != axis]
    return (rng.normal(size=shape) * np.expand_dims(np.broadcast_to(scale, shape[axis]), other)).astype("f4")


def of_images(*middle, **weights):
    first, last = normal(8, 3, 3, 3, scale=REACH), normal(4, 8, 1, 1)
    return (
        [("Conv", "x a", "t", PADS), *middle, ("Conv", "u z", "y", {})],
        (3, 7, 7),
        {"a": first, "z": last, **weights},
    )


def of_rows(turned):
    weight = normal(8, 8, axis=int(turned), scale=1 / REACH)
    nodes = [("Gemm", "x a", "t", {}), ("Gemm", "t m", "u", {"transB": int(turned)}), ("Gemm", "u z", "y", {})]
    return nodes, (5,), {"a": normal(5, 8, axis=1, scale=REACH), "z": normal(8, 3), "m": weight}


BOUNDS = {"zero": np.float32(0), "six": np.float32(6)}
CASES = {
    "depthwise": of_images(("Conv", "t m", "u", {"group": 8, **PADS}), m=normal(8, 1, 3, 3, scale=1 / REACH)),
    "groups": of_images(
        ("Conv", "t m", "u", {"group": 2, **PADS}), m=normal(8, 4, 3, 3, axis=1, scale=1 / REACH[:4])
    ),
    "transposed": of_images(("ConvTranspose", "t m", "u", PADS), m=normal(8, 8, 3, 3, scale=1 / REACH)),
    "clipped": of_images(
        ("Conv", "t m b", "c", {"group": 8}), ("Clip", "c zero six", "u", {}),
        m=normal(8, 1, 1, 1, scale=1 / REACH), b=normal(8), **BOUNDS,
    ),
    "gemm": of_rows(turned=False),
    "turned gemm": of_rows(turned=True),
}  # fmt: skip


def loaded(name):
    nodes, shape, weights = CASES[name]
    named = [make_node(*node[:3], name="middle" if "m" in node[1].split() else node[2], **node[3]) for node in nodes]
    return lowbit.load(make(named, {"x": ["n", *shape]}, ["y"], weights)), normal(16, *shape)


def as_written(content, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(content, options).run(None, {"x": x})[0]


def apart(answer, wanted):
    return np.square(answer - wanted).mean() / np.square(wanted).mean()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("recipe", ["float", "linear8", "linear5"])
def test_a_layer_that_is_kept_in_float_computes_what_the_file_says(name, recipe):
    model, x = loaded(name)
    quantized = lowbit.quantize(model, "int8", calibration=x, steps=(), rules=[f"middle={recipe}"])
    arithmetic = {node.node: node.arithmetic for node in quantized.plan.nodes}
    assert (arithmetic["middle"], arithmetic["y"]) == ("float", "integer"), arithmetic
    wanted, exact = as_written(quantized.to_bytes(), x), run(model.to_bytes(), x)
    assert apart(run(quantized.to_bytes(), x), wanted) < 1e-9
    if "openvino" in installed_engines():  # which need not round what only layers in float read
        content = quantized.to_bytes(lowbit.FileForm(to="openvino"))
        assert apart(run(content, x, "openvino"), exact) < 1.1 * apart(wanted, exact)


def test_one_channel_in_float_is_read_as_it_is():
    nodes = [("Conv", "x a", "t", {}), ("Conv", "t m", "u", PADS), ("Conv", "u z", "y", {})]
    weights = {
        "a": normal(1, 3, 3, 3),
        "m": normal(8, 1, 3, 3, scale=np.geomspace(1e-2, 1, 8)),
        "z": normal(4, 8, 1, 1),
    }
    CASES["one channel"] = nodes, (3, 7, 7), weights
    model, x = loaded("one channel")
    content = lowbit.quantize(model, "int8", calibration=x, steps=(), rules=["middle=float"]).to_bytes()
    assert apart(run(content, x), as_written(content, x)) < 1e-9


def test_networks_without_such_layers_are_written_as_before():
    model, x = loaded("depthwise")
    for rules in ((), ("first=float",), ("last=float",)):
        content = lowbit.quantize(model, "int8", calibration=x, steps=(), rules=rules).to_bytes()
        assert (b"Expand" in content) == (rules == ("last=float",))

"""matrix @ columns + bias is what ONNX Runtime computes, whatever the geometry."""

import itertools

import numpy as np
import pytest
from graph_models import assert_close, make, normal, run
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lowbit.errors import ModelError
from lowbit.graph.load import load
from lowbit.graph.ops import layers


def check(model, feeds, *, count=1):
    loaded = load(model)
    (layer,) = layers(loaded)
    weight = loaded.weights[layer.weight]
    matrix = layer.to_matrix(weight)
    np.testing.assert_array_equal(layer.from_matrix(matrix), weight)
    x = next(iter(feeds.values()))
    columns = layer.to_columns(x)
    assert columns.dtype == np.float32
    rows = matrix.astype(np.float64) @ columns.astype(np.float64)
    assert matrix.shape == (layer.groups, layer.out_channels // layer.groups, layer.columns)
    if layer.bias is not None:
        rows = rows + loaded.weights[layer.bias].reshape(layer.groups, -1, 1)
    (wanted,) = run(model, feeds)
    assert_close(rows.astype(np.float32), layer.to_rows(wanted), 1e-5)
    return layer, columns


@st.composite
def geometries(draw, transposed):
    rank = draw(st.sampled_from((1, 2, 2, 2, 3)))

    def each(low, high):
        return [draw(st.integers(low, high)) for _ in range(rank)]

    groups, inner, outer = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel, strides, dilations, sizes = each(1, 3), each(1, 3), each(1, 2), each(3, 7)
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "group": groups}
    # ONNX Runtime itself refuses SAME with dilations for some convolutions; explicit pads cover those.
    auto_pad = draw(st.sampled_from(("NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")))
    if auto_pad == "NOTSET":
        attributes["pads"] = each(0, 2) + each(0, 2)
    else:
        attributes["auto_pad"] = auto_pad
        attributes["dilations"] = dilations = [1] * rank
    if transposed:
        attributes["output_padding"] = extra = [draw(st.integers(0, stride - 1)) for stride in strides]
        pads = attributes.get("pads", [0] * 2 * rank)
        for axis in range(rank):
            full = strides[axis] * (sizes[axis] - 1) + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1
            assume(full - pads[axis] - pads[rank + axis] >= 1)
            if auto_pad.startswith("SAME"):
                assume(full >= sizes[axis] * strides[axis])
    elif "pads" in attributes or auto_pad == "VALID":
        pads = attributes.get("pads", [0] * 2 * rank)
        for axis in range(rank):
            extent = (kernel[axis] - 1) * dilations[axis] + 1
            assume(sizes[axis] + pads[axis] + pads[rank + axis] >= extent)
    shape = (groups * inner, outer) if transposed else (groups * outer, inner)
    batch = draw(st.integers(1, 3))
    return attributes, (*shape, *kernel), (batch, groups * inner, *sizes), groups * outer, draw(st.booleans())


def one_node(op, case):
    attributes, weight_shape, input_shape, outputs, with_bias = case
    weights = {"w": normal(1, *weight_shape)} | ({"b": normal(2, outputs)} if with_bias else {})
    return make([(op, ["x", *weights], ["y"], attributes)], {"x": input_shape}, ["y"], weights), input_shape


@settings(max_examples=50)
@given(geometries(transposed=False))
def test_convolution(case):
    model, shape = one_node("Conv", case)
    check(model, {"x": normal(3, *shape)})


@settings(max_examples=50)
@given(geometries(transposed=True))
def test_transposed_convolution(case):
    model, shape = one_node("ConvTranspose", case)
    check(model, {"x": normal(3, *shape)})


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("output_shape", [[9, 10], [10, 11], [8, 8]])
def test_transposed_convolution_with_output_shape(auto_pad, output_shape):
    attributes = {"strides": [2, 2], "output_shape": output_shape, "kernel_shape": [3, 4]}
    if auto_pad != "NOTSET":
        attributes["auto_pad"] = auto_pad
    model = make(
        [("ConvTranspose", ["x", "w"], ["y"], attributes)], {"x": [1, 2, 5, 5]}, ["y"], {"w": normal(1, 2, 3, 3, 4)}
    )
    check(model, {"x": normal(3, 1, 2, 5, 5)})


def test_depthwise_has_one_row_and_kernel_many_columns_a_channel():
    attributes = {"group": 5, "pads": [1, 1, 1, 1]}
    model = make([("Conv", ["x", "w"], ["y"], attributes)], {"x": [2, 5, 6, 6]}, ["y"], {"w": normal(1, 5, 1, 3, 3)})
    layer, columns = check(model, {"x": normal(3, 2, 5, 6, 6)})
    assert layer.depthwise
    assert columns.shape == (5, 9, 2 * 36)


def test_pointwise_on_one_image_is_not_copied():
    model = make([("Conv", ["x", "w"], ["y"], {})], {"x": [1, 8, 6, 6]}, ["y"], {"w": normal(1, 4, 8, 1, 1)})
    x = normal(3, 1, 8, 6, 6)
    layer = layers(load(model))[0]
    assert np.shares_memory(layer.to_columns(x), x)
    assert not layer.depthwise


@pytest.mark.parametrize(("transposed", "alpha", "beta"), list(itertools.product((0, 1), (1.0, 0.5), (1.0, 3.0))))
@pytest.mark.parametrize("bias_shape", [(4,), (1, 4), (1,), (), None])
def test_gemm(transposed, alpha, beta, bias_shape):
    weights = {"w": normal(1, *((4, 6) if transposed else (6, 4)))}
    if bias_shape is not None:
        weights["b"] = normal(2, *bias_shape)
    attributes = {"transB": transposed, "alpha": alpha, "beta": beta}
    model = make([("Gemm", ["x", *weights], ["y"], attributes)], {"x": ["n", 6]}, ["y"], weights)
    layer, _ = check(model, {"x": normal(3, 5, 6)})
    assert (layer.bias is None) == (bias_shape is None)
    assert layer.channel_axis == (0 if transposed else 1)
    assert layer.channel_axis == 1 - transposed


@pytest.mark.parametrize("batch", [(5,), (2, 3), (2, 3, 4), ()])
@pytest.mark.parametrize("swap", [False, True])
def test_matmul_and_the_add_behind_it(batch, swap):
    add = ["b", "m"] if swap else ["m", "b"]
    nodes = [("MatMul", ["x", "w"], ["m"], {}), ("Add", add, ["y"], {})]
    weights = {"w": normal(1, 6, 4), "b": normal(2, 4)}
    layer, columns = check(make(nodes, {"x": [*batch, 6]}, ["y"], weights), {"x": normal(3, *batch, 6)})
    assert layer.output == "y"
    assert layer.bias == "b"
    assert layer.op == ("Gemm" if len(batch) == 1 else "MatMul")
    assert (layer.bias_node is None) == (layer.op == "Gemm")
    assert columns.shape == (1, 6, int(np.prod(batch)))


def test_an_add_of_something_else_is_no_bias():
    for shape in [(2, 1, 4), (3, 4), (3, 1)]:
        nodes = [("MatMul", ["x", "w"], ["m"], {}), ("Add", ["m", "b"], ["y"], {})]
        weights = {"w": normal(1, 6, 4), "b": normal(2, *shape)}
        (layer,) = layers(load(make(nodes, {"x": [3, 6]}, ["y"], weights)))
        assert (layer.bias, layer.output, layer.bias_node) == (None, "m", None), shape


def test_an_image_smaller_than_the_kernel_is_named():
    model = make([("Conv", ["x", "w"], ["y"], {})], {"x": ["n", 1, "h", "w"]}, ["y"], {"w": normal(1, 1, 1, 5, 5)})
    with pytest.raises(ModelError, match=r"\[4, 4\].*smaller than the kernel"):
        layers(load(model))[0].to_columns(normal(2, 1, 1, 4, 4))

"""Parameters and MACs, against hand-worked numbers."""

import numpy as np
import pytest
from graph_models import conv_model, make, normal

from lowbit.errors import ModelError
from lowbit.graph.cost import cost
from lowbit.graph.load import load


def test_every_kind_of_layer():
    nodes = [
        ("Conv", ["x", "w1", "b1"], ["a"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("Conv", ["a", "w2"], ["b"], {"group": 4, "pads": [1, 1, 1, 1]}),
        ("ConvTranspose", ["b", "w3"], ["c"], {"strides": [2, 2], "group": 2}),
        ("Reshape", ["c", "rows"], ["d"], {}),
        ("MatMul", ["d", "w4"], ["e"], {}),
        ("Transpose", ["e"], ["f"], {"perm": [0, 2, 1]}),
        ("MatMul", ["e", "f"], ["g"], {}),
        ("ReduceMean", ["g"], ["h"], {"axes": [1], "keepdims": 0}),
        ("Gemm", ["h", "w5", "b5"], ["y"], {}),
    ]
    weights = {
        "w1": normal(1, 4, 3, 3, 3), "b1": normal(2, 4), "w2": normal(3, 4, 1, 3, 3), "w3": normal(4, 4, 3, 2, 2),
        "w4": normal(5, 64, 5), "w5": normal(6, 6, 10), "b5": normal(7, 10), "rows": np.array([0, 6, 64]),
    }  # fmt: skip
    counted = cost(load(make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], weights)))
    assert [layer.macs for layer in counted.layers] == [
        4 * 4 * 4 * 27,  # 4 channels of 4x4, each from 3 x 3x3
        4 * 4 * 4 * 9,  # depthwise
        4 * 4 * 4 * 3 * 4,  # 64 inputs, each to 3 channels x 2x2
        6 * 5 * 64,
        6 * 6 * 5,  # two activations
        10 * 6,
    ]
    assert [layer.parameters for layer in counted.layers] == [108 + 4, 36, 48, 320, 0, 70]
    assert counted.macs == sum(layer.macs for layer in counted.layers)
    assert counted.flops == 2 * counted.macs
    assert counted.layers[0].flops == 2 * counted.layers[0].macs
    assert counted.parameters == counted.trained_parameters == 586
    assert counted.weight_bytes == 586 * 4
    first = counted.layers[0]
    assert (first.input_shape, first.output_shape, first.dtype) == ((1, 3, 8, 8), (1, 4, 4, 4), "float32")
    assert (first.weight_min, first.weight_max) == (weights["w1"].min(), weights["w1"].max())
    assert counted.layers[4].weight_shape == ()


def test_batch_multiplies_macs_and_a_fixed_batch_stays():
    model = load(conv_model())
    assert cost(model, batch=7).macs == 7 * cost(model).macs
    assert cost(model, batch=7).batch == 7
    fixed = make([("Conv", ["x", "w"], ["y"], {})], {"x": [5, 3, 8, 8]}, ["y"], {"w": normal(1, 4, 3, 3, 3)})
    assert cost(load(fixed)).batch == 5
    assert cost(load(fixed)).layers[0].output_shape == (5, 4, 6, 6)


def test_counting_changes_nothing():
    model = load(conv_model())
    before = model.to_bytes()
    cost(model, batch=3)
    assert model.to_bytes() == before


def test_an_open_size_needs_to_be_given():
    model = load(
        make([("Conv", ["x", "w"], ["y"], {})], {"x": ["n", 3, "h", None]}, ["y"], {"w": normal(1, 4, 3, 3, 3)})
    )
    with pytest.raises(ModelError, match=r"'x' is \[n, 3, h, \?\].*shapes="):
        cost(model)
    assert cost(model, shapes={"x": (1, 3, 10, 6)}).macs == 4 * 8 * 4 * 27
    for wrong in ((1, 3, 10), (1, 4, 10, 6), (1, 3, 0, 6)):
        with pytest.raises(ModelError, match="does not fit input 'x'"):
            cost(model, shapes={"x": wrong})
    with pytest.raises(ModelError, match=r"no input 'z'.*inputs are x"):
        cost(model, shapes={"z": (1,)})
    with pytest.raises(ModelError, match="batch size must be at least 1, not 0"):
        cost(model, batch=0)


def test_a_shape_that_depends_on_the_data_is_named():
    nodes = [
        ("NonZero", ["x"], ["i"], {}),
        ("Cast", ["i"], ["f"], {"to": 1}),
        ("Transpose", ["f"], ["t"], {}),
        ("MatMul", ["t", "w"], ["y"], {}),
    ]
    model = load(make(nodes, {"x": ["n", 3]}, ["y"], {"w": normal(1, 2, 4)}))
    with pytest.raises(ModelError, match=r"shape of 't', at MatMul .* cannot be inferred"):
        cost(model)


def test_shared_weights_count_once():
    nodes = [("Conv", ["x", "w"], ["a"], {}), ("Conv", ["a", "w"], ["y"], {})]
    counted = cost(load(make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], {"w": normal(1, 3, 3, 3, 3)})))
    assert [layer.parameters for layer in counted.layers] == [81, 0]
    assert counted.parameters == 81


def test_the_network_of_the_study(shared_data):
    counted = cost(load(shared_data / "rps128" / "mobilenet_v2.onnx"))
    assert counted.trained_parameters == 2_227_715
    assert counted.parameters == 2_227_715 - 17_056  # one batch-norm scale a channel went into the weights
    assert counted.macs == 97_797_888
    by_kind = {"1x1": 0, "depthwise": 0, "first": 0, "classifier": 0}
    for layer in counted.layers:
        shape = layer.weight_shape
        by_kind[
            "classifier" if len(shape) == 2 else "depthwise" if shape[1] == 1 else "first" if shape[1] == 3 else "1x1"
        ] += layer.macs
    assert by_kind == {"1x1": 87_490_560, "depthwise": 6_764_544, "first": 3_538_944, "classifier": 3_840}
    assert sum(layer.parameters for layer in counted.layers) == counted.parameters

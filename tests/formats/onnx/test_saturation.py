"""vpmaddubsw by hand, against a plain loop, and on whole files."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

import lowbit
import networks
from graphs import make, make_node, run
from lowbit.engines import open_session
from lowbit.errors import ModelError
from lowbit.formats.onnx.saturation import saturating


def one_layer(weights, *, zero_point=0, op="Conv", **attributes):
    """A file of one integer layer with scales of 1, so that its output is the sum itself."""
    constants = {"one": np.float32(1), "zero": np.uint8(zero_point), "w": weights.astype(np.int8)}
    shape = ["n", weights.shape[1] * attributes.get("group", 1), "h", "w"] if op == "Conv" else ["n", "k"]
    nodes = [
        make_node("DequantizeLinear", "x one zero", "xd"),
        make_node("DequantizeLinear", "w one", "wd"),
        make_node(op, "xd wd", "y", name="layer", **attributes),
    ]
    return make(nodes, {"x": shape}, ["y"], constants, types={"x": TensorProto.UINT8}).SerializeToString()


def test_worked_by_hand():
    """Four channels, one pixel: pairs (255, 255) and (10, 20).

    First output:  255*127 + 255*127 = 64770 saturates to 32767;   10*3 - 20*5 = -70    together 32697
    Second:       -255*127 - 255*127 = -64770 saturates to -32768; 10*100 + 20*1 = 1020 together -31748
    Third:         255*127 - 255*127 = 0, opposite signs do not;   10*127 + 20*127 = 3810
    """
    weights = np.array([[127, 127, 3, -5], [-127, -127, 100, 1], [127, -127, 127, 127]]).reshape(3, 4, 1, 1)
    x = np.array([255, 255, 10, 20], np.uint8).reshape(1, 4, 1, 1)
    content = one_layer(weights)
    assert run(content, x).ravel().tolist() == [64700, -63750, 3810]
    found = saturating(content)
    assert run(found.content, x).ravel().tolist() == [32697, -31748, 3810]
    # The third output's second pair could saturate too, with brighter pixels.
    assert found.risky == {"layer": 3}
    assert found.pairs == {"layer": 6}


def by_loop(x, weights, *, zero_point, strides, pads, group):
    """The definition: channels of one place of the kernel, then the next place, two by two."""
    outputs, channels, height, width = weights.shape
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), *pads), constant_values=zero_point)
    rows = (padded.shape[2] - height) // strides[0] + 1
    columns = (padded.shape[3] - width) // strides[1] + 1
    result = np.zeros((len(x), outputs, rows, columns), np.int64)
    for n, o, i, j in np.ndindex(result.shape):
        start = o // (outputs // group) * channels
        window = padded[n, start : start + channels, i * strides[0] :, j * strides[1] :][:, :height, :width]
        a = [*window.transpose(1, 2, 0).ravel().tolist(), 0]
        w = [*weights[o].transpose(1, 2, 0).ravel().tolist(), 0]
        pairs = [a[k] * w[k] + a[k + 1] * w[k + 1] for k in range(0, len(a) - 1, 2)]
        # The zero point is taken out afterwards, exactly.
        result[n, o, i, j] = sum(min(max(pair, -32768), 32767) for pair in pairs) - zero_point * sum(w)
    return result


@settings(max_examples=30)
@given(
    channels=st.integers(1, 5),
    group=st.sampled_from([1, 2]),
    kernel=st.sampled_from([(1, 1), (3, 3), (2, 3)]),
    strides=st.sampled_from([(1, 1), (2, 1)]),
    pad=st.integers(0, 1),
    zero_point=st.sampled_from([0, 1, 128, 255]),
    seed=st.integers(0, 1000),
)
def test_equals_the_definition(channels, group, kernel, strides, pad, zero_point, seed):
    generator = np.random.default_rng(seed)
    weights = generator.integers(-128, 128, size=(4, channels, *kernel))
    x = generator.integers(100, 256, size=(2, channels * group, 4, 5), dtype=np.uint8)
    content = one_layer(weights, zero_point=zero_point, group=group, strides=strides, pads=[pad] * 4)
    found = saturating(content)
    if group > 1 and channels == 1:
        assert not found.pairs, "depthwise kernels multiply in 32 bits"
        return
    expected = by_loop(x, weights, zero_point=zero_point, strides=strides, pads=((pad, pad), (pad, pad)), group=group)
    np.testing.assert_array_equal(run(found.content, x), expected)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("inputs", [40, 41])
def test_matrix_products(transposed, inputs):
    generator = np.random.default_rng(inputs)
    matrix = generator.integers(-128, 128, size=(7, inputs))
    x = generator.integers(0, 256, size=(3, inputs), dtype=np.uint8)
    expected = by_loop(
        x.reshape(3, inputs, 1, 1), matrix.reshape(7, inputs, 1, 1), zero_point=9, strides=(1, 1),
        pads=((0, 0), (0, 0)), group=1,
    ).reshape(3, 7)  # fmt: skip
    assert not np.array_equal(expected, (x.astype(np.int64) - 9) @ matrix.T)
    stored = matrix if transposed else matrix.T
    content = one_layer(stored, zero_point=9, op="Gemm", transB=transposed)
    np.testing.assert_array_equal(run(saturating(content).content, x), expected)
    if not transposed:
        product = saturating(one_layer(stored, zero_point=9, op="MatMul"))
        np.testing.assert_array_equal(run(product.content, x), expected)


def test_seven_bits_cannot_saturate():
    weights = np.full((1, 2, 1, 1), 63)
    assert saturating(one_layer(weights)).risky == {}
    assert saturating(one_layer(weights + 1)).risky == {}  # 255 * 128 = 32640 still fits
    assert saturating(one_layer(weights + 2)).risky == {"layer": 1}  # 255 * 130 = 33150 does not


@pytest.fixture(scope="module")
def files():
    model = lowbit.load(networks.residual_network(first=16))
    images = lowbit.open_images(list(networks.inputs(16)), None)
    return {
        recipe: lowbit.quantize(model, recipe, calibration=images, steps=()).to_bytes()
        for recipe in ("int8", "int7", "linear8")
    }


def answers(content):
    return open_session(content, threads=1).run({"x": networks.inputs(16, seed=4)})["logits"]


def test_whole_files(files):
    found = saturating(files["int8"])
    assert set(found.pairs) == {"stem", "narrow", "wide", "back", "last", "fc"}
    assert 0 < sum(found.risky.values()) < sum(found.pairs.values()) / 4
    change = np.abs(answers(found.content) - answers(files["int8"])).max()
    assert 0 < change < np.abs(answers(files["int8"])).max()
    onnx.checker.check_model(onnx.load_from_string(found.content))


def test_files_that_cannot_saturate_stay_as_they_are(files):
    for recipe in ("int7", "linear8"):
        found = saturating(files[recipe])
        assert not found.risky
        np.testing.assert_array_equal(answers(found.content), answers(files[recipe]))


def test_no_onnx_file(tmp_path):
    with pytest.raises(ModelError, match="there is no such file"):
        saturating(tmp_path / "missing.onnx")

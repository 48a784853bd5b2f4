import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import litert_cases as cases
from lowbit.engines.litert_reader import read_litert
from lowbit.errors import ModelError
from lowbit.formats.litert.file import FileOperator, FileTensor, serialize
from lowbit.formats.litert.ledger import litert_layer_weights, read_litert_ledger
from lowbit.formats.litert.write import to_litert
from lowbit.formats.onnx.read import layer_weights
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.quantization.quantize import quantize

pytest.importorskip("ai_edge_litert")

WEIGHTED = ["Conv", "Conv/depthwise", "Conv/grouped", "ConvTranspose", "Gemm", "Flatten+Gemm", "MatMul", "residual"]


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("recipe", ["float", "linear8", "int8"])
@pytest.mark.parametrize("seed", range(2))
def test_lines_sum_to_the_file_and_weights_are_those_of_the_onnx_file(tmp_path, name, recipe, seed):
    rng = np.random.default_rng([seed, len(name)])
    model = cases.CASES[name](rng)
    encoded = cases.integer(model, rng) if recipe == "int8" else quantize(model, recipe).graph
    path, onnx = tmp_path / "a.tflite", tmp_path / "a.onnx"
    path.write_bytes(to_litert(encoded))
    onnx.write_bytes(to_onnx(encoded))
    ledger = read_litert_ledger(path)
    assert sum(ledger.bytes.values()) == ledger.total == path.stat().st_size
    assert min(ledger.bytes.values()) >= 0
    wanted, found = layer_weights(onnx), litert_layer_weights(path)
    assert list(found) == list(wanted)
    for node in wanted:
        np.testing.assert_array_equal(found[node], wanted[node])
    coded = sum(codes.codes.size for codes in encoded.weights.values())
    dilated = name == "ConvTranspose" and ledger.counts["codes"] > coded
    assert ledger.counts["codes"] == coded or dilated
    assert [layer.node for layer in ledger.layers] == list(wanted)


def test_each_number_is_counted_once_under_its_kind(tmp_path):
    made = cases.integer(cases.CASES["Flatten+Gemm"](np.random.default_rng(0)), np.random.default_rng(1))
    path = tmp_path / "a.tflite"
    path.write_bytes(to_litert(made))
    ledger = read_litert_ledger(path)
    # Convolution of 3 to 4 channels and a product of 60 columns and 6 rows without a bias.
    assert ledger.counts["codes"] == ledger.bytes["codes"] == 4 * 3 + 60 * 6
    assert ledger.bytes["biases"] == 4 * 4
    assert ledger.bytes["float_weights"] == 0
    assert ledger.bytes["scales"] == 4 * ledger.counts["scales"]
    assert ledger.bytes["zero_points"] == 8 * ledger.counts["zero_points"]
    conv, product = ledger.layers
    assert (conv.weights, conv.code_bytes, conv.side_bytes) == (12, 12, 4 * 4 + 4 * 8)
    assert (product.weights, product.code_bytes) == (360, 360)


def test_copies_that_no_layer_reads_are_constants_and_buffers_that_nothing_reads_padding(tmp_path):
    weight = FileTensor((4, 1, 1, 3), "float32", "w", np.ones((4, 1, 1, 3), np.float32))
    copy = FileTensor((100,), "int8", "pseudo_qconst", np.arange(100, dtype=np.int8))
    bias = FileTensor((4,), "float32", "", np.zeros(4, np.float32))
    tensors = [FileTensor((1, 2, 2, 3), "float32", "x"), weight, bias, FileTensor((1, 2, 2, 4), "float32", "y"), copy]
    operator = FileOperator("CONV_2D", (0, 1, 2), (3,), {"strideH": 1, "strideW": 1}, "Conv2DOptions")
    content = serialize(tensors, [operator], inputs=[0], outputs=[3], metadata={}, source="test")
    path = tmp_path / "foreign.tflite"
    path.write_bytes(content)
    ledger = read_litert_ledger(path)
    assert ledger.bytes["constants"] == 100
    assert ledger.bytes["float_weights"] == 48
    assert ledger.bytes["biases"] == 16
    assert [layer.node for layer in ledger.layers] == ["y"]
    np.testing.assert_array_equal(litert_layer_weights(path)["y"], np.ones((4, 3, 1, 1)))
    unread = serialize(tensors[:4], [operator], inputs=[0], outputs=[3], metadata={"other": "text"}, source="test")
    path.write_bytes(unread)
    ledger = read_litert_ledger(path)
    assert ledger.bytes["padding"] == ledger.bytes["constants"] == 0
    assert read_litert(unread, "test").text("other") == "text"


@pytest.fixture(scope="module")
def content():
    made = cases.integer(cases.CASES["residual"](np.random.default_rng(0)), np.random.default_rng(1))
    return to_litert(made)


def read_everything(data, path):
    path.write_bytes(data)
    ledger = read_litert_ledger(path)
    assert sum(ledger.bytes.values()) == len(data)
    litert_layer_weights(path)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_an_error_or_are_read_but_nothing_else(content, tmp_path, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 4))
        damaged[place : place + 4] = data.draw(st.binary(min_size=4, max_size=4))
    length = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    try:
        read_everything(bytes(damaged[:length]), tmp_path / "damaged.tflite")
    except ModelError as error:
        assert str(tmp_path) in error.where  # noqa: PT017


def test_files_of_another_kind_are_named(tmp_path):
    for name, data in (("a.tflite", b""), ("b.tflite", os.urandom(100)), ("c.tflite", b"\x10\0\0\0TFL3")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match="tflite"):
            read_litert_ledger(tmp_path / name)
    with pytest.raises(ModelError, match="cannot be read"):
        read_litert_ledger(tmp_path / "none.tflite")


def test_notes_that_do_not_fit_are_refused(tmp_path):
    model = cases.CASES["Flatten+Gemm"](np.random.default_rng(0))
    content = to_litert(QuantizedGraph(model))
    assert b'"image": [4, 5, 3]' in content
    path = tmp_path / "a.tflite"
    path.write_bytes(content.replace(b'"image": [4, 5, 3]', b'"image": [7, 5, 3]'))
    with pytest.raises(ModelError, match="does not match"):
        litert_layer_weights(path)
    path.write_bytes(content.replace(b'"image": [4, 5, 3]', b'"image": [4, 5, 3}'))
    with pytest.raises(ModelError, match="damaged"):
        litert_layer_weights(path)

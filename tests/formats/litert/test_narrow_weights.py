"""Integer weights of fewer than 8 bits in LiteRT: two in a byte where kernels take them, else whole bytes, and said."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node, relative_error, run
from lowbit.formats.litert.ledger import litert_layer_weights, read_litert_ledger
from lowbit.quantization.planning.recipes import parse_recipe

pytest.importorskip("ai_edge_litert")


def network(inner=24):
    """A convolution, and products of which the first gives integers."""
    rng = np.random.default_rng(3)
    weights = {"w": rng.normal(size=(16, 4, 3, 3)), "v": rng.normal(size=(inner, 16)), "u": rng.normal(size=(5, inner))}
    nodes = [make_node("Conv", "x w", "c"), make_node("GlobalAveragePool", "c", "p"), make_node("Flatten", "p", "f")]
    nodes += [make_node("Gemm", "f v", "g", transB=1), make_node("Relu", "g", "r")]
    nodes += [make_node("Gemm", "r u", "y", transB=1)]
    return lowbit.load(make(nodes, {"x": ["n", 4, 8, 8]}, ["y"], weights))


def made(recipe, **options):
    model = network(**options)
    x = np.random.default_rng(4).normal(size=(6, 4, 8, 8)).astype(np.float32)
    recipe = parse_recipe(recipe, extra_bits=0) if recipe != "int7" else recipe
    return lowbit.quantize(model, recipe, calibration=x, steps=()), x


@pytest.mark.parametrize("recipe", ["int2", "int3", "int4", "int5", "int7", "icluster1", "icluster4"])
def test_the_file_holds_the_codes_and_answers_as_the_onnx_file_does(recipe, tmp_path):
    quantized, x = made(recipe)
    path = quantized.save(tmp_path / "model.tflite")
    weights = litert_layer_weights(path)
    for name, codes in quantized.graph.weights.items():
        np.testing.assert_array_equal(weights[{"w": "c", "v": "g", "u": "y"}[name]], codes.decode())
    assert relative_error(run(path, x, "litert"), run(quantized.to_bytes(), x)) < 0.02
    ledger = read_litert_ledger(path)
    assert sum(ledger.bytes.values()) == ledger.total == path.stat().st_size
    sizes = {layer.node: layer.code_bytes for layer in ledger.layers}
    halved = recipe in ("int2", "int3", "int4")
    assert sizes == {"c": 16 * 36, "g": 24 * 16 // (1 + halved), "y": 5 * 24}
    (note,) = quantized.notes_on(path)
    assert note.startswith(f"LiteRT files hold {3 - halved} of the 3 weights of fewer than 8 bits in a byte each")
    assert not quantized.notes_on("model.onnx")


def test_rows_of_an_odd_length_stay_in_whole_bytes(tmp_path):
    quantized, x = made("int4", inner=25)
    path = quantized.save(tmp_path / "model.tflite")
    sizes = {layer.node: layer.code_bytes for layer in read_litert_ledger(path).layers}
    assert sizes["g"] == 25 * 16 // 2
    assert sizes["y"] == 5 * 25
    assert relative_error(run(path, x, "litert"), run(quantized.to_bytes(), x)) < 0.02

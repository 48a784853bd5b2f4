"""Recipes in half precision: what is float16, what stays float32 and why."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import lowbit
from graphs import make, make_node
from lowbit.errors import DowngradeError, ModelError, SchemeError
from lowbit.formats.opening import file_ledger, pack_file
from lowbit.quantization.planning.plan import Plan
from lowbit.schemes.half import Half

RNG = np.random.default_rng(7)
W, V = (RNG.normal(size=size).astype(np.float32) / 4 for size in ((16, 40), (40, 8)))
X = RNG.normal(size=(12, 16)).astype(np.float32)


def network(middle, **more):
    """A product, some nodes from "a" to "b", and another product."""
    nodes = [make_node("MatMul", "x w", "a", name="first"), *middle, make_node("MatMul", "b v", "y", name="last")]
    return lowbit.load(make(nodes, {"x": ["n", 16]}, ["y"], {"w": W, "v": V, **more}))


def answers(content, engine="onnxruntime"):
    return lowbit.open_session(content, engine=engine, threads=1).run({"x": X})["y"]


def types(content):
    """By node: the types of its outputs, as onnx infers them."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(content), strict_mode=True)
    known = {
        value.name: value.type.tensor_type.elem_type for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    return {node.name: known[node.output[0]] for node in inferred.graph.node if node.output[0] in known}  # fmt: skip


RELU = [make_node("Relu", "a", "b", name="act")]
SQUARE = [make_node("Mul", "a big", "s", name="scale"), make_node("Mul", "s s", "q"), make_node("Sqrt", "q", "b")]


@pytest.mark.parametrize("images", [False, True])
def test_the_whole_network_is_half_but_for_its_ends(images):
    model = network(RELU)
    made = lowbit.quantize(model, "float16", calibration=list(X) if images else None, strict=True)
    content = made.to_bytes()
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    found = types(content)
    assert {found[name] for name in ("first", "act")} == {TensorProto.FLOAT16}
    assert [value.type.tensor_type.elem_type for value in onnx.load_from_string(content).graph.input] == [1]
    assert answers(content).dtype == np.float32
    assert made.plan.adaptations == ()
    for engine in ("onnxruntime", "openvino"):
        np.testing.assert_allclose(answers(content, engine), answers(model.to_bytes()), atol=0.01)


def test_images_show_what_overflows():
    model = network(SQUARE, big=np.full(40, 300, np.float32))
    wanted = answers(model.to_bytes())
    made = lowbit.quantize(model, "float16", calibration=list(X))
    kept = {node.op for node in made.plan.nodes if node.arithmetic == "float32"}
    assert kept == {"Mul", "Sqrt"}
    assert any("q (Mul) computes in float32: q reaches" in said for said in made.plan.adaptations)
    np.testing.assert_allclose(answers(made.to_bytes()), wanted, rtol=0.01, atol=1)
    small = network(SQUARE, big=np.full(40, 1, np.float32))
    assert {node.arithmetic for node in lowbit.quantize(small, "float16", calibration=list(X)).plan.nodes} == {
        "float16"
    }


def test_images_show_what_has_too_few_digits():
    middle = [make_node("Sigmoid", "a", "p"), make_node("Mul", "p tiny", "s"), make_node("Tanh", "s", "t")]
    middle.append(make_node("Mul", "t back", "b"))
    model = network(middle, tiny=np.full(40, 1e-6, np.float32), back=np.full(40, 1e4, np.float32))
    made = lowbit.quantize(model, "float16", calibration=list(X))
    assert any("where float16 has fewer digits" in node.reason for node in made.plan.nodes)
    np.testing.assert_allclose(answers(made.to_bytes()), answers(model.to_bytes()), atol=1e-3)


def test_without_images_sums_powers_and_masks_stay_float32():
    model = network(
        [
            make_node("Tanh", "a", "t"),
            make_node("Add", "t mask", "m"),
            make_node("Softmax", "m", "p"),
            make_node("LayerNormalization", "p g", "b"),
        ],
        mask=np.where(np.arange(40) % 5, 0, -1e9).astype(np.float32),
        g=np.ones(40, np.float32),
    )
    made = lowbit.quantize(model, "float16")
    reasons = {node.op: node.reason for node in made.plan.nodes if node.arithmetic == "float32"}
    assert list(reasons) == ["Add", "Softmax", "LayerNormalization"]
    assert "constant that float16 does not hold" in reasons["Add"]
    np.testing.assert_allclose(answers(made.to_bytes()), answers(model.to_bytes()), atol=0.02)
    measured = lowbit.quantize(model, "float16", calibration=list(X))
    kept = {node.op for node in measured.plan.nodes if node.arithmetic == "float32"}
    assert kept == {"Add", "Softmax"}


def test_infinities_of_masks_are_no_overflow():
    model = network([make_node("Where", "keep a low", "m"), make_node("Softmax", "m", "b")], keep=np.arange(40) % 5 > 0,
                    low=np.float32(-np.inf))  # fmt: skip
    made = lowbit.quantize(model, "float16", calibration=list(X))
    assert {node.arithmetic for node in made.plan.nodes} == {"float16"}
    np.testing.assert_allclose(answers(made.to_bytes()), answers(model.to_bytes()), atol=0.01)


@pytest.mark.parametrize("recipe", ["float16w", "bfloat16w", "bfloat16"])
def test_weights_alone(recipe, tmp_path):
    model = network(RELU)
    made = lowbit.quantize(model, recipe)
    path = made.save(tmp_path / "a.onnx")
    assert TensorProto.FLOAT16 not in types(path.read_bytes()).values()
    assert file_ledger(path, path).bits_per_weight == 16
    scheme = lowbit.parse_recipe(recipe).weights
    exact = model.with_weights({name: scheme.encode(array).decode() for name, array in (("w", W), ("v", V))})
    np.testing.assert_allclose(answers(path), answers(exact.to_bytes()), rtol=1e-6, atol=1e-6)
    if recipe == "bfloat16":
        with pytest.raises(DowngradeError, match="only weights are bfloat16"):
            lowbit.quantize(model, recipe, strict=True)


def test_litert_stores_float16_and_refuses_bfloat16(tmp_path):
    pytest.importorskip("ai_edge_litert")
    model = network(RELU)
    path = lowbit.quantize(model, "float16").save(tmp_path / "a.tflite")
    given = lowbit.open_session(path, engine="litert", threads=1).run({"x": X})["y"]
    np.testing.assert_allclose(given, answers(model.to_bytes()), atol=0.01)
    assert file_ledger(path, path).bits_per_weight == 16
    with pytest.raises(ModelError, match="bfloat16, which LiteRT does not decode"):
        lowbit.quantize(model, "bfloat16w").save(tmp_path / "b.tflite")


def test_values_out_of_reach_stay_float32():
    model = network(RELU, v=V * np.float32(1e6))
    made = lowbit.quantize(model, "float16")
    assert "v (33 % of the weights' bytes) stays float: some of its values are out of reach" in made.plan.downgrades[0]
    np.testing.assert_allclose(answers(made.to_bytes()), answers(model.to_bytes()), rtol=0.01, atol=1e4)
    assert lowbit.quantize(model, "bfloat16w", strict=True).graph.weights["v"].scheme == Half("bfloat16")


def test_a_plan_and_an_archive_hold_halves(tmp_path):
    made = lowbit.quantize(network(RELU), "float16")
    assert Plan.from_json(made.plan.to_json()) == made.plan
    path = made.save(tmp_path / "a.onnx")
    packed = pack_file(path)
    assert lowbit.load(packed).precision.type == "float16"


def test_no_options_that_need_scales():
    with pytest.raises(SchemeError, match="has no scales"):
        lowbit.parse_recipe("float16", per="channel")
    with pytest.raises(SchemeError, match="unknown recipe 'float8'"):
        lowbit.parse_recipe("float8")


@pytest.mark.parametrize("perm", [(1, 0, 2), (1, 2, 0), (1, 2, 0, 3), (1, 2, 3, 0)])
def test_products_of_what_is_turned_do_not_end_onnxruntime(perm, tmp_path):
    """It crashed while it loaded such a file, so another process tries."""
    sides = [16] * len(perm)
    nodes = [make_node("Transpose", "x", "t", perm=perm), make_node("MatMul", "t w", "a"), make_node("Relu", "a", "b")]
    proto = make([*nodes, make_node("MatMul", "b v", "y")], {"x": sides}, ["y"], {"w": W, "v": V})
    path = lowbit.quantize(proto, "float16").save(tmp_path / "half.onnx")
    code = "import lowbit, sys; lowbit.open_session(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    x = RNG.normal(size=sides).astype(np.float32)
    exact, half = (
        lowbit.open_session(file, threads=1).run({"x": x})["y"] for file in (proto.SerializeToString(), path)
    )
    np.testing.assert_allclose(half, exact, atol=0.02)

"""Networks in float16, bfloat16 and float64: files keep their type around the codes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lowbit
from graphs import make, make_node
from lowbit.formats.file_form import FileForm
from lowbit.formats.onnx.ledger import count_bytes

KINDS = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float64": TensorProto.DOUBLE}
RNG = np.random.default_rng(3)
WEIGHTS = {"w": RNG.normal(size=(32, 96)) / 6, "v": RNG.normal(size=(96, 24)) / 9, "c": RNG.normal(size=24)}
X = RNG.normal(size=(6, 32)).astype(np.float32)


def network(kind, *, kernels=True):
    """Two products; with `kernels` only operators that ONNX Runtime has in float64."""
    middle = "Relu" if kernels else "HardSwish"
    nodes = [make_node("MatMul", "x w", "a"), make_node(middle, "a", "b"), make_node("Gemm", "b v c", "y")]
    dtype = helper.tensor_dtype_to_np_dtype(KINDS[kind])
    weights = {name: array.astype(dtype) for name, array in WEIGHTS.items()}
    return make(nodes, {"x": ["n", 32]}, ["y"], weights, dtype=KINDS[kind])


def run(content, engine="onnxruntime"):
    return lowbit.open_session(content, engine=engine, threads=1).run({"x": X})["y"]


def ends(proto):
    return [value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)]


@pytest.mark.parametrize("recipe", ["float", "linear8", "cluster4", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_keep_the_type_and_shrink(kind, recipe):
    model = lowbit.load(network(kind))
    made = lowbit.quantize(model, recipe, calibration=list(X), effort="fast")
    exact = run(model.to_bytes()).astype(np.float64)
    content = made.to_bytes()
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    assert ends(proto) == [KINDS[kind]] * 2
    bits = {"float": 8 * helper.tensor_dtype_to_np_dtype(KINDS[kind]).itemsize, "cluster4": 5}.get(recipe, 8)
    assert count_bytes(proto, len(content)).bits_per_weight <= bits + 1.2
    for engine in ("onnxruntime", "openvino"):
        form = FileForm(to="openvino" if engine == "openvino" else "onnx")
        given = run(made.to_bytes(form), engine).astype(np.float64)
        assert np.abs(given - exact).max() < (0.2 if recipe == "cluster4" else 0.03) * np.abs(exact).max()


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_the_float_file_answers_bit_for_bit(kind):
    proto = network(kind)
    made = lowbit.quantize(lowbit.load(proto), "float").to_bytes()
    np.testing.assert_array_equal(run(made), run(proto.SerializeToString()))
    assert [node.op_type for node in onnx.load_from_string(made).graph.node] == ["MatMul", "Relu", "Gemm"]


def test_where_there_is_no_kernel_the_file_computes_in_float32_and_says_so(tmp_path):
    for kind, said in (("bfloat16", "no bfloat16 kernels"), ("float64", "no float64 kernel for HardS")):
        proto = network(kind, kernels=kind == "bfloat16")
        proto.opset_import[0].version = 14
        made = lowbit.quantize(lowbit.load(proto), "linear8")
        assert ends(onnx.load_from_string(made.to_bytes())) == [KINDS[kind]] * 2
        assert run(made.to_bytes()).shape == (6, 24)
        (note,) = made.notes_on(tmp_path / "a.onnx")
        assert said in note
        assert f"inputs and outputs keep {kind}" in note


@pytest.mark.parametrize("recipe", ["float", "int8"])
def test_a_file_in_another_type_at_its_ends_only_is_read_and_written_as_such(recipe):
    made = lowbit.quantize(lowbit.load(network("bfloat16")), recipe, calibration=list(X), effort="fast").to_bytes()
    again = lowbit.load(made)
    assert dict(again.precision.ends) == {"x": "bfloat16", "y": "bfloat16"}
    assert again.input.dtype == np.float32
    copied = again.to_bytes() if recipe == "int8" else lowbit.quantize(again, "float").to_bytes()
    np.testing.assert_allclose(run(copied), run(made), rtol=0.01, atol=0.02)


def test_openvino_has_no_float64_ends_on_integers():
    made = lowbit.quantize(lowbit.load(network("float64")), "int8", calibration=list(X), effort="fast")
    assert ends(onnx.load_from_string(made.to_bytes(FileForm(to="openvino")))) == [TensorProto.FLOAT] * 2


def test_what_was_float32_between_halves_stays_so():
    nodes = [
        make_node("MatMul", "x w", "a"),
        make_node("Cast", "a", "wide", to=TensorProto.FLOAT),
        make_node("Mul", "wide large", "scaled"),
        make_node("Softmax", "scaled", "p"),
        make_node("Cast", "p", "narrow", to=TensorProto.FLOAT16),
        make_node("MatMul", "narrow v", "y"),
    ]
    weights = {name: WEIGHTS[name].astype(np.float16) for name in "wv"} | {"large": np.float32(3e5)}
    proto = make(nodes, {"x": ["n", 32]}, ["y"], weights, dtype=TensorProto.FLOAT16)
    made = lowbit.quantize(lowbit.load(proto), "float").to_bytes()
    np.testing.assert_array_equal(run(made), run(proto.SerializeToString()))


@pytest.mark.parametrize("recipe", ["float", "linear8"])
def test_bodies_and_mixed_ends(recipe):
    body = [
        make([make_node("MatMul", "a v", f"{name}_y")], {}, [f"{name}_y"], {}, dtype=TensorProto.FLOAT16).graph
        for name in ("then", "else")
    ]
    nodes = [
        make_node("MatMul", "x w", "a"),
        helper.make_node("If", ["flag"], ["i"], name="if", then_branch=body[0], else_branch=body[1]),
        make_node("Cast", "i", "y", to=TensorProto.FLOAT),
    ]
    weights = {name: WEIGHTS[name].astype(np.float16) for name in "wv"}
    types = {"flag": TensorProto.BOOL, "y": TensorProto.FLOAT}
    proto = make(nodes, {"x": ["n", 32], "flag": []}, ["y"], weights, dtype=TensorProto.FLOAT16, types=types)
    content = lowbit.quantize(lowbit.load(proto), recipe).to_bytes()
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    feeds = {"x": X, "flag": np.array(True)}
    given, wanted = (
        lowbit.open_session(file, threads=1).run(feeds)["y"] for file in (content, proto.SerializeToString())
    )
    assert given.dtype == np.float32
    assert np.abs(given - wanted).max() < 0.02 * np.abs(wanted).max()


def test_a_float16_network_is_halved_in_litert_too(tmp_path):
    pytest.importorskip("ai_edge_litert")
    made = lowbit.quantize(lowbit.load(network("float16")), "float")
    path = made.save(tmp_path / "a.tflite")
    assert path.stat().st_size < 2 * sum(array.size for array in WEIGHTS.values()) + 2500
    (note,) = made.notes_on(path)
    assert "LiteRT files take, give and compute float32" in note
    given = lowbit.open_session(path, engine="litert", threads=1).run({"x": X})["y"]
    np.testing.assert_allclose(given, run(made.to_bytes()), atol=0.01)

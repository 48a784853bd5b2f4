"""Weights that exporters leave computed from other constants: LoRA sums, standardized and normalized ones."""

import time

import numpy as np
import onnx
import pytest

import lowbit
from graphs import make, make_node

RNG = np.random.default_rng(5)
WIDE, UP, DOWN = (RNG.normal(size=size).astype(np.float32) for size in ((24, 20), (24, 3), (3, 20)))
KERNEL, GAIN = RNG.normal(size=(6, 4, 3, 3)).astype(np.float32), RNG.normal(size=(6, 1, 1, 1)).astype(np.float32)
LORA = {"w": WIDE, "b": UP, "a": DOWN, "s": np.float32(0.5)}
KERNELS = {"w": KERNEL, "g": GAIN, "eps": np.float32(1e-5), "two": np.float32(2)}
FLAT = {"flat": np.array([1, 6, 36]), "back": np.array([6, 4, 3, 3]), "one": np.ones(6), "none": np.zeros(6)}
LINEAR = [make_node("Transpose", "m", "t", perm=[1, 0]), make_node("MatMul", "x t", "y")]
CONV = [make_node("Conv", "x m", "y")]
MEAN = {"axes": [1, 2, 3], "keepdims": 1}
CENTERED = [make_node("ReduceMean", "w", "mu", **MEAN), make_node("Sub", "w mu", "c")]
ROOT = [make_node("ReduceMean", "sq", "v", **MEAN), make_node("Add", "v eps", "ve"), make_node("Sqrt", "ve", "sd")]

SUMS = {
    "sum": [make_node("MatMul", "b a", "p"), make_node("Mul", "p s", "q"), make_node("Add", "w q", "m"), *LINEAR],
    "the other way round": [make_node("Gemm", "b a", "p", alpha=0.5), make_node("Add", "p w", "m"), *LINEAR],
    "in one Gemm": [make_node("Gemm", "b a w", "m", alpha=0.5), *LINEAR],
    "einsum": [make_node("Einsum", "b a", "p", equation="or,ri->oi"), make_node("Sub", "w p", "m"), *LINEAR],
    "chain of factors": [
        *(make_node("MatMul", "b a", "p"), make_node("Mul", "p s", "q"), make_node("Div", "q s", "r")),
        *(make_node("Mul", "s r", "u"), make_node("Add", "w u", "m"), *LINEAR),
    ],
    "turned": [
        *(make_node("Transpose", "a", "at"), make_node("Transpose", "b", "bt"), make_node("MatMul", "at bt", "p")),
        *(make_node("Transpose", "w", "wt"), make_node("Add", "wt p", "t"), make_node("MatMul", "x t", "y")),
    ],
    "with its length apart": [
        *(make_node("MatMul", "b a", "p"), make_node("Add", "w p", "v")),
        make_node("ReduceSumSquare", "v", "q", axes=[1]),
        *(make_node("Sqrt", "q", "n"), make_node("Div", "v n", "u"), make_node("Mul", "u s", "m"), *LINEAR),
    ],
}  # fmt: skip
STANDARDIZED = {
    "by a product": [*CENTERED, make_node("Mul", "c c", "sq"), *ROOT, make_node("Div", "c sd", "m"), *CONV],
    "by a power": [
        *(*CENTERED, make_node("Pow", "c two", "sq"), *ROOT, make_node("Reciprocal", "sd", "r")),
        *(make_node("Mul", "c r", "u"), make_node("Mul", "u g", "m"), *CONV),
    ],
    "by an instance norm": [
        *(make_node("Reshape", "w flat", "f"), make_node("InstanceNormalization", "f one none", "n", epsilon=1e-6)),
        *(make_node("Reshape", "n back", "m"), *CONV),
    ],
    "by a batch norm in training": [
        *(make_node("Reshape", "w flat", "f"),),
        make_node("BatchNormalization", "f one none none one", "n rm rv", training_mode=1, epsilon=1e-6),
        *(make_node("Reshape", "n back", "m"), *CONV),
    ],
    "by its length": [
        *(make_node("ReduceL2", "w", "n", **MEAN), make_node("Div", "w n", "u"), make_node("Mul", "u g", "m"), *CONV),
    ],
    "by a function": [make_node("Tanh", "w", "u"), make_node("Mul", "u g", "m"), *CONV],
}


def cases():
    for form, nodes in SUMS.items():
        yield pytest.param(nodes, {"x": ["n", 20]}, LORA, id=f"sum: {form}")
    for form, nodes in STANDARDIZED.items():
        yield pytest.param(nodes, {"x": ["n", 4, 5, 5]}, KERNELS | FLAT, id=f"standardized {form}")


@pytest.mark.parametrize(("nodes", "inputs", "weights"), list(cases()))
def test_become_one_weight_that_is_quantized(nodes, inputs, weights):
    read = {name for node in nodes for name in node.input}
    proto = make(nodes, inputs, ["y"], {name: array for name, array in weights.items() if name in read}, opset=14)
    model = lowbit.load(proto)
    assert [node.op_type for node in model.ir.graph] in (["MatMul"], ["Conv"])
    x = np.random.default_rng(1).normal(size=[3, *inputs["x"][1:]]).astype(np.float32)
    wanted = lowbit.open_session(proto.SerializeToString(), threads=1).run({"x": x})["y"]
    for recipe, error in (("float", 1e-5), ("linear8", 0.03)):
        made = lowbit.quantize(model, recipe, strict=True)
        given = lowbit.open_session(made.to_bytes(), threads=1).run({"x": x})["y"]
        assert np.abs(given - wanted).max() <= error * np.abs(wanted).max()
    assert [tensor.given.name for tensor in made.plan.tensors if tensor.given] == ["linear8/channel"]


def test_narrow_factors_alone_stay_apart():
    nodes = [make_node("MatMul", "b a", "m"), *LINEAR]
    model = lowbit.load(make(nodes, {"x": ["n", 20]}, ["y"], {"b": UP, "a": DOWN}))
    assert sum(array.size for array in model.weights.values()) == UP.size + DOWN.size


def test_lora_of_activations_has_three_weights():
    nodes = [make_node("MatMul", "x w", "h"), make_node("MatMul", "x a", "r"), make_node("MatMul", "r b", "q")]
    nodes += [make_node("Mul", "q s", "u"), make_node("Add", "h u", "y")]
    weights = {"w": WIDE.T.copy(), "a": DOWN.T.copy(), "b": UP.T.copy(), "s": np.float32(2)}
    plan = lowbit.plan(lowbit.load(make(nodes, {"x": ["n", 20]}, ["y"], weights)), "linear4")
    assert {tensor.layers for tensor in plan.tensors if tensor.shape != ()} == {("h",), ("r",), ("q",)}


@pytest.mark.parametrize("op", ["MatMul", "Einsum", "Gemm"])
def test_a_product_too_large_to_compute_is_left_alone(op):
    long = np.ones((1 << 17, 1), np.float32)
    how = {"equation": "ij,kj->ik"} if op == "Einsum" else {"transB": 1} if op == "Gemm" else {}
    second = long.T.copy() if op == "MatMul" else long
    nodes = [
        make_node(op, "b a", "p", **how),
        make_node("ReduceSum", "p", "q", keepdims=0),
        make_node("MatMul", "x w", "h"),
    ]
    nodes += [make_node("Add", "h q", "y")]  # fmt: skip
    began = time.perf_counter()
    large = make(nodes, {"x": ["n", 20]}, ["y"], {"w": WIDE.T.copy(), "b": long, "a": second})
    model = lowbit.load(large, input_sizes={"": (None, 20)})  # or it would be refused for its size
    assert op in [node.op_type for node in model.ir.graph]
    assert time.perf_counter() - began < 5


def test_parts_of_a_weight_are_weights():
    nodes = [make_node("Split", "w", "a b", axis=0), make_node("Gemm", "x a", "h", transB=1)]
    nodes += [make_node("Gemm", "x b", "k", transB=1), make_node("Add", "h k", "y")]
    model = lowbit.load(make(nodes, {"x": ["n", 20]}, ["y"], {"w": WIDE}, opset=13))
    assert sorted(array.shape for array in model.weights.values()) == [(12, 20), (12, 20)]
    assert isinstance(onnx.load_from_string(model.to_bytes()), onnx.ModelProto)

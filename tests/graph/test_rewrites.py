"""Each rewrite by itself, on the smallest graph that shows what it does."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_models import conv_model, make, normal
from onnx import helper, numpy_helper

from lowbit.errors import ModelError
from lowbit.graph import prepare
from lowbit.graph.prepare import REWRITES

GEMM = {"w": normal(1, 3, 4), "b": normal(2, 4)}

WINDOWS = {"kernel_shape": [3], "strides": [2]}


def gemm(**attributes):
    return make([("Gemm", ["x", "w", "b"], ["y"], attributes)], {"x": [2, 3]}, ["y"], GEMM)


def after(*nodes, **weights):
    """Nodes behind a Relu of x [2, 3]."""
    return make([("Relu", ["x"], ["r"], {}), *nodes], {"x": [2, 3]}, ["y"], weights)


def with_function():
    proto = make([], {"x": [2, 3]}, ["y"], {})
    proto.graph.node.append(helper.make_node("Twice", ["x"], ["y"], domain="own"))
    opsets = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    proto.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    return proto


def described():
    proto = conv_model()
    proto.graph.node[0].doc_string = "at line 7 of a file"
    return proto


def weights_as_inputs():
    """As files of IR version 3 have them."""
    proto = conv_model(ir_version=3)
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return proto


def hard_swish():
    nodes = [("Add", ["x", "three"], ["a"], {}), ("Clip", ["a", "zero", "six"], ["c"], {}),
             ("Mul", ["x", "c"], ["m"], {}), ("Div", ["m", "six"], ["y"], {})]  # fmt: skip
    numbers = {"zero": np.float32(0), "three": np.float32(3), "six": np.float32(6)}
    return shaped(make(nodes, {"x": [2, 3]}, ["y"], numbers, opset=13))


def norm_behind_convolution():
    nodes = [
        ("Conv", ["x", "w"], ["c"], {}),
        ("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"], {}),
    ]
    vectors = {name: np.abs(normal(seed, 4)) for seed, name in enumerate("gbmv")}
    return make(nodes, {"x": [1, 3, 5, 5]}, ["y"], {"w": normal(9, 4, 3, 1, 1), **vectors})


def flattened_norm():
    nodes = [
        ("MatMul", ["x", "w"], ["p"], {}),
        ("Reshape", ["p", "rows"], ["r"], {}),
        ("BatchNormalization", ["r", "g", "b", "m", "v"], ["n"], {}),
        ("Reshape", ["n", "back"], ["y"], {}),
    ]
    vectors = {name: np.abs(normal(seed, 4)) for seed, name in enumerate("gbmv")}
    sizes = {"rows": np.array([-1, 4]), "back": np.array([2, 5, 4])}
    return shaped(make(nodes, {"x": [2, 5, 3]}, ["y"], {"w": normal(9, 3, 4), **vectors, **sizes}))


def half():
    weights = {"w": normal(1, 3, 4).astype(np.float16)}
    return make([("Gemm", ["x", "w"], ["y"], {})], {"x": [2, 3]}, ["y"], weights, dtype=onnx.TensorProto.FLOAT16)


def sizes_of_another_layer():
    """A convolution that halves the image, noted with the image's own sizes, and an output that is flattened."""
    nodes = [("Conv", ["x", "w"], ["c"], {"strides": [2, 2]}), ("Flatten", ["c"], ["y"], {})]
    proto = make(nodes, {"x": ["n", 3, "h", "w"]}, {"y": ["n", "h"]}, {"w": normal(1, 8, 3, 1, 1)})
    proto.graph.value_info.append(helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["n", 8, "h", "w"]))
    return proto


def shaped(proto):
    """With the shapes of all tensors."""
    return onnx.shape_inference.infer_shapes(proto)


def operators(model):
    return [node.op_type for node in model.graph]


def weight_in_a_body():
    """A weight that a branch turns, and a small constant that stays beside its node."""
    branch = make(
        [("Transpose", ["w"], ["t"], {}), ("MatMul", ["x", "t"], ["m"], {}), ("Add", ["m", "one"], ["z"], {})],
        {},
        ["z"],
        {"w": normal(1, 32, 3), "one": np.ones(1)},
    ).graph
    nodes = [
        ("Greater", ["k", "k"], ["flag"], {}),
        ("If", ["flag"], ["y"], {"then_branch": branch, "else_branch": branch}),
    ]
    return make(nodes, {"x": [2, 3]}, ["y"], {"k": np.float32(0)})


def known_branch():
    """A branch that is always taken."""
    proto = weight_in_a_body()
    del proto.graph.node[0]
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
    return proto


def untyped_output():
    proto = conv_model()
    proto.graph.output[0].type.tensor_type.elem_type = 0
    return proto


def spare_opset():
    proto = conv_model()
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


# Name of the rewrite -> (a model, what of it differs afterwards, before, after)
CASES = {
    "to_float32": (half, lambda m: m.graph.inputs[0].dtype, ir.DataType.FLOAT16, ir.DataType.FLOAT),
    "forget_named_sizes": (
        sizes_of_another_layer,
        lambda m: [list(map(str, m.graph.node(0).outputs[0].shape)), list(map(str, m.graph.outputs[0].shape))],
        [["n", "8", "h", "w"], ["n", "h"]],
        [["None", "8", "None", "None"], ["n", "h"]],
    ),
    "inline_functions": (with_function, operators, ["Twice"], ["Add"]),
    "fix_weights": (
        lambda: weights_as_inputs(),
        lambda m: [value.name for value in m.graph.inputs],
        ["x", "w", "b"],
        ["x"],
    ),
    "lift_constants": (
        lambda: after(helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(normal(1, 3))),
                      ("Add", ["r", "c"], ["y"], {})),
        lambda m: ("c" in m.graph.initializers, "Constant" in operators(m)),
        (False, True),
        (True, False),
    ),
    "strip_descriptions": (described, lambda m: m.graph[0].doc_string, "at line 7 of a file", None),
    "infer_shapes": (gemm, lambda m: m.graph.outputs[0].shape, None, ir.Shape([2, 4])),
    "remove_no_ops": (
        lambda: after(("Identity", ["r"], ["i"], {}), ("Neg", ["i"], ["y"], {})),
        operators,
        ["Relu", "Identity", "Neg"],
        ["Relu", "Neg"],
    ),
    "fold_constants": (
        lambda: after(("Neg", ["w"], ["n"], {}), ("Add", ["r", "n"], ["y"], {}), w=normal(1, 3)),
        operators,
        ["Relu", "Neg", "Add"],
        ["Relu", "Add"],
    ),
    "fold_reduced_constants": (
        lambda: onnx.shape_inference.infer_shapes(
            after(
                ("Tile", ["w", "t"], ["n"], {}),
                ("ReduceSum", ["n"], ["s"], {"keepdims": 0}),
                ("Add", ["r", "s"], ["y"], {}),
                w=normal(1, 4),
                t=np.array([1 << 15]),
            )
        ),
        operators,
        ["Relu", "Tile", "ReduceSum", "Add"],
        ["Relu", "Tile", "Add"],
    ),
    "write_all_axes": (
        lambda: make(
            [("Pad", ["x", "by", "", "at"], ["y"], {})],
            {"x": [2, 3]},
            ["y"],
            {"by": np.array([1, 2]), "at": np.array([-1])},
            opset=18,
        ),
        lambda m: [*m.graph.initializers["by"].const_value.numpy(), len(m.graph[0].inputs)],
        [1, 2, 4],
        [0, 1, 0, 2, 3],
    ),
    "count_no_padding": (
        lambda: make(
            [("AveragePool", ["x"], ["y"], {"ceil_mode": 1, "count_include_pad": 1, "dilations": [1], **WINDOWS})],
            {"x": [1, 3, 8]},
            ["y"],
            {},
            opset=19,
            ir_version=9,
        ),
        lambda m: sorted(m.graph[0].attributes),
        ["ceil_mode", "count_include_pad", "dilations", "kernel_shape", "strides"],
        ["ceil_mode", "kernel_shape", "strides"],
    ),
    "write_whole_pools": (
        lambda: make(
            [
                ("AveragePool", ["x"], ["m"], {"kernel_shape": [4, 6], "strides": [4, 6], "auto_pad": "VALID"}),
                ("AveragePool", ["x"], ["p"], {"kernel_shape": [4, 6], "pads": [0, 1, 0, 0]}),
                ("AveragePool", ["x"], ["q"], {"kernel_shape": [4, 3], "strides": [4, 3]}),
                ("AveragePool", ["x"], ["r"], {"kernel_shape": [4, 6], "auto_pad": "SAME_UPPER"}),
                ("AveragePool", ["z"], ["s"], {"kernel_shape": [4, 6]}),
            ],
            {"x": ["n", 3, 4, 6], "z": ["n", 3, "h", 6]},
            ["m", "p", "q", "r", "s"],
            {},
        ),
        lambda m: (operators(m), sorted(m.graph[0].attributes)),
        (["AveragePool"] * 5, ["auto_pad", "kernel_shape", "strides"]),
        (["GlobalAveragePool", *["AveragePool"] * 4], []),
    ),
    "remove_unused_nodes": (
        lambda: after(("Neg", ["r"], ["unused"], {}), ("Abs", ["r"], ["y"], {})),
        operators,
        ["Relu", "Neg", "Abs"],
        ["Relu", "Abs"],
    ),
    "lift_weights": (
        weight_in_a_body,
        lambda m: (sorted(m.graph.initializers), operators(m)),
        (["k"], ["Greater", "If"]),
        (["k", "w", "w_2"], ["Greater", "If"]),
    ),
    "take_known_branches": (
        known_branch,
        lambda m: (operators(m), m.graph.outputs[0].name),
        (["If"], "y"),
        (["Transpose", "MatMul", "Add", "Identity"], "y"),
    ),
    "merge_copies": (
        lambda: make(
            [("MatMul", ["x", "a"], ["h"], {}), ("MatMul", ["h", "t"], ["i"], {}), ("MatMul", ["i", "b"], ["y"], {})],
            {"x": [2, 32]},
            ["y"],
            {"a": normal(1, 32, 40), "b": normal(1, 32, 40), "t": normal(1, 32, 40).T.copy()},
        ),
        lambda m: (sorted(m.graph.initializers), operators(m)),
        (["a", "b", "t"], ["MatMul", "MatMul", "MatMul"]),
        (["a", "t"], ["MatMul", "MatMul", "MatMul"]),  # turned, it has its channels along another axis
    ),
    "fold_gemm_factors": (
        lambda: gemm(alpha=2.0),
        lambda m: float(m.graph.initializers["w"].const_value.numpy()[0, 0]),
        float(GEMM["w"][0, 0]),
        2 * float(GEMM["w"][0, 0]),
    ),
    "fold_batch_norms": (norm_behind_convolution, operators, ["Conv", "BatchNormalization"], ["Conv"]),
    "forget_undefined_types": (
        untyped_output,
        lambda m: m.graph.outputs[0].dtype is ir.DataType.UNDEFINED,
        True,
        False,
    ),
    "open_negative_sizes": (
        lambda: make([("Gemm", ["x", "w", "b"], ["y"], {})], {"x": [-1, 3]}, ["y"], GEMM),
        lambda m: m.graph.inputs[0].shape == [-1, 3],
        True,
        False,
    ),
    "write_known_sizes": (
        lambda: after(("Shape", ["x"], ["s"], {}), ("Reshape", ["r", "s"], ["y"], {})),
        operators,
        ["Relu", "Shape", "Reshape"],
        ["Relu", "Reshape"],
    ),
    "write_biases": (
        lambda: make([("MatMul", ["x", "w"], ["p"], {}), ("Sub", ["p", "b"], ["y"], {})], {"x": [2, 3]}, ["y"], GEMM),
        lambda m: (operators(m), float(m.graph.initializers["b"].const_value.numpy()[0])),
        (["MatMul", "Sub"], float(GEMM["b"][0])),
        (["MatMul", "Add"], -float(GEMM["b"][0])),
    ),
    "write_gemms": (
        lambda: make([("MatMul", ["x", "w"], ["p"], {}), ("Add", ["p", "b"], ["y"], {})], {"x": [2, 3]}, ["y"], GEMM),
        lambda m: (operators(m), [value.name for value in m.graph[0].inputs]),
        (["MatMul", "Add"], ["x", "w"]),
        (["Gemm"], ["x", "w", "b"]),
    ),
    "move_flattened_norms": (
        flattened_norm,
        operators,
        ["MatMul", "Reshape", "BatchNormalization", "Reshape"],
        ["MatMul", "Mul", "Add", "Reshape", "Reshape"],
    ),
    "write_hard_swishes": (
        hard_swish,
        lambda m: (operators(m), m.graph.outputs[0].name, m.opset_imports[""]),
        (["Add", "Clip", "Mul", "Div"], "y", 13),
        (["Add", "Clip", "Mul", "HardSwish"], "y", 14),
    ),
    "merge_transposes": (
        lambda: after(("Transpose", ["r"], ["t"], {"perm": [1, 0]}), ("Transpose", ["t"], ["u"], {"perm": [1, 0]}),
                      ("Neg", ["u"], ["y"], {})),
        lambda m: m.graph[-1].inputs[0].name,
        "u",
        "r",
    ),
    "move_transposes": (
        lambda: shaped(after(("Transpose", ["r"], ["t"], {"perm": [1, 0]}), ("Neg", ["t"], ["u"], {}),
                             ("Transpose", ["u"], ["v"], {"perm": [1, 0]}), ("Abs", ["v"], ["y"], {}))),
        operators,
        ["Relu", "Transpose", "Neg", "Transpose", "Abs"],
        ["Relu", "Neg", "Abs"],
    ),
    "merge_reshapes": (
        lambda: shaped(after(("Flatten", ["r"], ["f"], {}), ("Reshape", ["f", "to"], ["y"], {}), to=np.array([3, 2]))),
        lambda m: m.graph[-1].inputs[0].name,
        "f",
        "r",
    ),
    "merge_slices": (
        lambda: shaped(after(("Slice", ["r", "one", "two", "zero"], ["s"], {}),
                             ("Slice", ["s", "zero", "two", "one"], ["y"], {}),
                             zero=np.array([0]), one=np.array([1]), two=np.array([2]))),
        lambda m: m.graph[-1].inputs[0].name,
        "s",
        "r",
    ),
    "fold_flattened_transposes": (
        lambda: shaped(make([("Transpose", ["x"], ["t"], {"perm": [0, 2, 1]}), ("Flatten", ["t"], ["f"], {}),
                             ("MatMul", ["f", "w"], ["y"], {})], {"x": [2, 3, 2]}, ["y"], {"w": normal(1, 6, 4)})),
        lambda m: m.graph[1].inputs[0].name,
        "t",
        "x",
    ),
    "fold_pads": (
        lambda: make([("Pad", ["x", "by"], ["p"], {}), ("Conv", ["p", "w"], ["y"], {})], {"x": [1, 3, 5]}, ["y"],
                     {"by": np.array([0, 0, 1, 0, 0, 2]), "w": normal(1, 4, 3, 3)}),
        lambda m: list(m.graph[1].attributes.get_ints("pads", [])),
        [],
        [1, 2],
    ),
    "merge_duplicates": (
        lambda: after(("Neg", ["r"], ["a"], {}), ("Neg", ["r"], ["b"], {}), ("Add", ["a", "b"], ["y"], {})),
        operators,
        ["Relu", "Neg", "Neg", "Add"],
        ["Relu", "Neg", "Add"],
    ),
    "remove_unused_opsets": (spare_opset, lambda m: set(m.opset_imports), {"", "com.microsoft"}, {""}),
    "fix_names": (conv_model, lambda m: all(node.name for node in m.graph), False, True),
}  # fmt: skip
CHECKS = {
    "check_inference": (
        lambda: after(("Dropout", ["r", "ratio", "mode"], ["y"], {}), ratio=np.float32(0.5), mode=np.array(True)),
        "Dropout .* is in training mode",
    ),
    "check_finite": (
        lambda: make([("Gemm", ["x", "w"], ["y"], {})], {"x": [2, 3]}, ["y"], {"w": np.full((3, 4), np.nan, "f")}),
        "'w' of Gemm .* has 12 values that are NaN or infinite",
    ),
}


def test_every_rewrite_has_a_case_here():
    listed = {rewrite.__name__ for rewrite in itertools.chain(*REWRITES)}
    assert listed == CASES.keys() | CHECKS.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_rewrite_changes_the_model_in_place_and_once(name):
    proto, view, before, wanted = CASES[name]
    model = ir.from_proto(proto())
    assert view(model) == before
    rewrite = getattr(prepare, name)
    assert rewrite(model) is not False
    assert view(model) == wanted
    assert not rewrite(model)
    assert view(model) == wanted


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_refuses_what_it_names_and_changes_nothing_else(name):
    proto, message = CHECKS[name]
    check = getattr(prepare, name)
    with pytest.raises(ModelError, match=message):
        check(ir.from_proto(proto()))
    sound = ir.from_proto(conv_model())
    before = ir.to_proto(sound)
    check(sound)
    assert ir.to_proto(sound) == before

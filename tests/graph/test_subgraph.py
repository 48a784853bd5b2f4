"""Pieces of a network: what crosses a cut, and what is computed on either side of it."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import lowbit
from lowbit.engines import open_session
from lowbit.graph.subgraph import Subgraphs

SIDE = 1 << 17  # large enough that it is not folded while the model is loaded


def network_with_a_large_computed_constant():
    """y = exp(w x) * log(sum(exp(c))), where c is made by nodes that read no input."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], name="fc"),
        helper.make_node("Concat", ["threes", "threes"], ["pair"], axis=0),
        *(helper.make_node("Concat", [name, name], [f"{name}2"], axis=0) for name in ("pair", "pair2", "pair22")),
        helper.make_node("ReduceLogSumExp", ["pair222"], ["mean"], keepdims=0),
        helper.make_node("Exp", ["h"], ["e"]),
        helper.make_node("Mul", ["e", "mean"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [
            numpy_helper.from_array(np.full(SIDE, 3, np.float32), "threes"),
            numpy_helper.from_array(np.eye(4, dtype=np.float32)[::-1].copy(), "w"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_what_is_the_same_for_each_sample_does_not_cross_a_cut():
    model = lowbit.load(network_with_a_large_computed_constant())
    pieces = Subgraphs(model)
    assert any(node.op_type == "Concat" for node in model.light_proto().graph.node)  # it was not folded
    crossings = [pieces.crossing(at) for at in range(pieces.count + 1)]
    assert set().union(*crossings) <= {"x", "h", "e"}
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    at = pieces.produced_by("e") + 1
    first, taken = pieces.extract(["x"], ["e"], weights={})
    assert taken == ("x",)
    e = open_session(first).run({"x": x})["e"]
    second, taken = pieces.extract(pieces.crossing(at), ["y"], weights={})
    assert taken == ("e",)
    whole = onnx.reference.ReferenceEvaluator(network_with_a_large_computed_constant()).run(None, {"x": x})[0]
    np.testing.assert_allclose(open_session(second).run({"e": e})["y"], whole, rtol=1e-6)

"""Tables of integers take the bytes that their values need, and the file computes what it did."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import lowbit
from graphs import make, make_node, relative_error
from lowbit.engines import open_session
from lowbit.formats.onnx.ledger import read_ledger

TOKENS, HEADS, WIDTH = 12, 2, 16


def attention(table, *, readers=2):
    """Scores of tokens, with biases by relative position: each block looks them up in a table of its own places."""
    generator = np.random.default_rng(0)
    weights = {"w": generator.normal(size=(WIDTH, TOKENS)).astype(np.float32) / 4}
    nodes = [make_node("MatMul", "x w", "s0", name="scores")]
    for at in range(readers):
        weights[f"places{at}"] = table.copy()
        weights[f"bias{at}"] = generator.normal(size=(int(table.max()) + 1, 1)).astype(np.float32)
        nodes += [
            make_node("GatherND", f"bias{at} places{at}", f"b{at}"),
            make_node("Squeeze", f"b{at} last", f"c{at}"),
        ]
        nodes += [make_node("Add", f"s{at} c{at}", f"a{at}"), make_node("Tanh", f"a{at}", f"s{at + 1}")]
    weights["last"] = np.array([2])
    return make(nodes, {"x": ["n", TOKENS, WIDTH]}, {f"s{readers}": ["n", TOKENS, TOKENS]}, weights)


def places(most, dtype=np.int64):
    return np.random.default_rng(1).integers(0, most + 1, (TOKENS, TOKENS, 1)).astype(dtype)


def stored(path):
    return [tensor for tensor in onnx.load(path).graph.initializer if list(tensor.dims) == [TOKENS, TOKENS, 1]]


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("most", "type_"), [(200, TensorProto.UINT8), (300, TensorProto.UINT16), (70_000, TensorProto.INT32)]
)
def test_equal_tables_are_stored_once_in_their_narrowest_type(most, type_, to, tmp_path):
    table = places(most)
    table[0, 0, 0] = most
    proto = attention(table)
    path = lowbit.quantize(proto, "linear8").save(tmp_path / "q.onnx", lowbit.FileForm(to=to))
    (tensor,) = stored(path)
    assert tensor.data_type == type_
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), table)
    assert sum(read_ledger(path).bytes.values()) == path.stat().st_size
    x = {"x": np.random.default_rng(2).normal(size=(3, TOKENS, WIDTH)).astype(np.float32)}
    exact = next(iter(open_session(proto.SerializeToString(), threads=1).run(x).values()))
    for engine in ("onnxruntime", "openvino"):
        answer = next(iter(open_session(path, engine=engine, threads=1).run(x).values()))
        assert relative_error(answer, exact) < 0.02


def test_signed_tables_and_tables_of_another_type_keep_their_meaning(tmp_path):
    table = places(90, np.int32)
    table[0, 0, 0] = -1  # the last entry
    proto = attention(table.astype(np.int64), readers=1)
    twin = numpy_helper.from_array(table, "wide")
    proto.graph.initializer.append(twin)
    proto.graph.node.append(make_node("Cast", "wide", "floats", to=TensorProto.FLOAT))
    proto.graph.node.append(make_node("Squeeze", "floats last", "square"))
    proto.graph.node.append(make_node("Add", "s1 square", "y"))
    del proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", TOKENS, TOKENS]))
    path = lowbit.quantize(proto, "linear8").save(tmp_path / "q.onnx")
    assert TensorProto.INT8 in {tensor.data_type for tensor in stored(path)}
    x = {"x": np.random.default_rng(2).normal(size=(3, TOKENS, WIDTH)).astype(np.float32)}
    exact, answer = (open_session(given, threads=1).run(x)["y"] for given in (proto.SerializeToString(), path))
    assert relative_error(answer, exact) < 0.02


def test_small_tables_and_those_that_need_all_their_bits_stay(tmp_path):
    nodes = [make_node("MatMul", "x w", "h"), make_node("GatherND", "e small", "g"), make_node("Add", "h g", "a")]
    nodes += [make_node("Gather", "wide ids", "f"), make_node("Cast", "f", "c", to=TensorProto.FLOAT)]
    nodes += [make_node("ReduceMax", "c", "m", keepdims=0), make_node("Add", "a m", "y")]
    weights = {"w": np.eye(TOKENS, dtype=np.float32), "e": np.ones(4, np.float32), "small": places(3)[0]}
    weights["wide"] = np.arange(64) + 2**40
    proto = make(nodes, {"x": ["n", TOKENS], "ids": [2]}, ["y"], weights, types={"ids": TensorProto.INT64})
    path = lowbit.quantize(proto, "linear8").save(tmp_path / "q.onnx")
    kept = {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert kept["small"] == kept["wide"] == TensorProto.INT64

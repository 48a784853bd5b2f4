"""Small files whose tensors would fill the memory are refused before anything runs; who states the size is believed."""

import time

import numpy as np
import onnx
import pytest
from graph_models import make, normal, run

import lowbit
from lowbit.calibration.batches import Batches
from lowbit.data.opening import open_data
from lowbit.errors import ModelError
from lowbit.formats.opening import check_memory
from lowbit.graph.memory import LEAST_BYTES, most_bytes, samples_that_fit
from lowbit.graph.save import save

WEIGHTS = {"w": normal(1, 4, 3, 3, 3), "v": normal(2, 3, 2, 3, 3)}
SIZES = {"x": ["n", 3, 16, 16]}
CONV = ("Conv", ["x", "w"], ["c"], {})


def network(*nodes, sizes=SIZES, out="y", **constants):
    return make([CONV, *nodes], sizes, [out], WEIGHTS | {name: np.array(value) for name, value in constants.items()})


DOUBLED = [("Concat", [f"d{at}", f"d{at}"], [f"d{at + 1}"], {"axis": 1}) for at in range(25)]
BOMBS = {
    "Concat": network(("Identity", ["c"], ["d0"], {}), *DOUBLED, ("ReduceMax", ["d25"], ["y"], {"axes": [1, 2, 3]})),
    "Pad": network(("Pad", ["c", "p"], ["y"], {}), p=[0, 0, 8000, 8000, 0, 0, 8000, 8000]),
    "Conv": network(("Conv", ["x", "w"], ["y"], {"pads": [8000] * 4})),
    "ConvTranspose": network(("ConvTranspose", ["x", "v"], ["y"], {"strides": [2000, 2000]})),
    "Tile": network(("Tile", ["c", "t"], ["y"], {}), t=[1, 1, 1 << 12, 1 << 12]),
    "Expand": network(("Expand", ["c", "t"], ["y"], {}), t=[1 << 20, 4, 14, 14]),
    "Resize": network(("Resize", ["c", "", "s"], ["y"], {}), s=np.array([1, 1, 1000, 1000], np.float32)),
    "ConstantOfShape": network(
        ("ConstantOfShape", ["s"], ["k"], {}),
        ("ReduceMax", ["k"], ["m"], {}),
        ("Add", ["c", "m"], ["y"], {}),
        s=[1 << 28],
    ),
    "RandomNormal": network(
        ("RandomNormal", [], ["k"], {"shape": [1 << 28]}),
        ("ReduceMax", ["k"], ["m"], {}),
        ("Add", ["c", "m"], ["y"], {}),
    ),
    "an input": network(("Relu", ["c"], ["y"], {}), sizes={"x": ["n", 3, 1 << 14, 1 << 14]}),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_tensors_that_would_fill_the_memory_are_counted_first(name):
    began = time.process_time()
    with pytest.raises(ModelError, match=r"MB for one sample.* 256 MB are the most") as caught:
        lowbit.load(BOMBS[name])
    assert "--input-size" in caught.value.remedy
    assert time.process_time() - began < 3


def test_sizes_that_the_user_states_are_meant():
    large = network(("Relu", ["c"], ["y"], {}), sizes={"x": ["n", 3, 2900, 2900]})
    with pytest.raises(ModelError, match="MB for one sample"):
        lowbit.load(large)
    model = lowbit.load(large, input_sizes={"x": (None, 3, 2900, 2900)})
    assert most_bytes(model.graph) == 4 * (3 * 2900**2 + 2 * 4 * 2898**2)
    assert samples_that_fit(model.ir) == 1
    data = open_data({"x": np.zeros((3, 3, 2900, 2900), np.float16)}, model)
    assert Batches(model, data, 2).size == 1


def test_networks_with_more_weights_may_have_larger_tensors():
    weights = {"w": normal(1, 4, 3, 3, 3), "u": normal(2, 1 << 19, 4, 1, 1)}
    nodes = [CONV, ("GlobalAveragePool", ["c"], ["g"], {}), ("Conv", ["g", "u"], ["h"], {})]
    nodes += [("Tile", ["h", "t"], ["y"], {})]
    model = lowbit.load(make(nodes, SIZES, ["y"], weights | {"t": np.array([1, 1, 16, 16])}))
    assert most_bytes(model.graph) > LEAST_BYTES
    assert samples_that_fit(model.ir) == 3


def test_tensors_that_are_no_longer_needed_do_not_count():
    """A hundred of 800 kB, two at a time; and one that is read at the end."""
    chain = [("Relu", ["c" if at == 0 else f"r{at}"], [f"r{at + 1}"], {}) for at in range(100)]
    sizes = {"x": [1, 3, 226, 226]}
    size, given = 4 * 4 * 224**2, 4 * 3 * 226**2
    model = network(*chain, ("Relu", ["r100"], ["y"], {}), sizes=sizes)
    assert most_bytes(lowbit.load(model).graph) == 2 * size + given
    model = network(*chain, ("Add", ["r100", "c"], ["y"], {}), sizes=sizes)
    assert most_bytes(lowbit.load(model).graph) == 3 * size + given


def test_a_file_beside_the_float_one_is_counted_too(tmp_path):
    model = lowbit.load(network(("Relu", ["c"], ["y"], {})))
    bomb = tmp_path / "bomb.onnx"
    onnx.save(BOMBS["Tile"], bomb)
    with pytest.raises(ModelError, match=r"bomb\.onnx: its tensors take"):
        check_memory(bomb, model)
    good = save(model, tmp_path / "good.onnx")
    check_memory(good, model)
    with pytest.raises(ModelError, match="MB for one sample"):
        lowbit.measure([good, bomb], {"x": np.zeros((2, 3, 16, 16), np.float32)}, runs=0)


def test_few_values_behind_many_constant_ones_are_computed_once():
    """Eight megabytes doubled three times; a runtime would add it up whenever it opens the file."""
    doubled = [("Concat", [f"k{at}", f"k{at}"], [f"k{at + 1}"], {"axis": 0}) for at in range(3)]
    nodes = [("Tile", ["k", "t"], ["k0"], {}), *doubled, ("ReduceSum", ["k3"], ["s"], {"keepdims": 0})]
    model = network(*nodes, ("Add", ["c", "s"], ["y"], {}), k=normal(3, 1 << 12), t=[1 << 9])
    loaded = lowbit.load(model)
    assert [node.op_type for node in loaded.graph] == ["Conv"]  # the sum is its bias
    x = normal(4, 2, 3, 16, 16)
    np.testing.assert_allclose(run(loaded.to_bytes(), {"x": x})[0], run(model, {"x": x})[0], rtol=1e-3)
    # Read as it is too: then it stays.
    kept = network(*nodes, ("Add", ["c", "s"], ["d"], {}), ("Slice", ["k3", "a", "b"], ["e"], {}),
                   ("Slice", ["e", "a", "o"], ["f"], {}), ("Add", ["d", "f"], ["y"], {}),
                   k=normal(3, 1 << 12), t=[1 << 9], a=[0], b=[1 << 24], o=[1])  # fmt: skip
    np.testing.assert_allclose(run(lowbit.load(kept).to_bytes(), {"x": x})[0], run(kept, {"x": x})[0], rtol=1e-3)


def test_work_on_constants_has_an_end():
    roots = [("Sqrt", [f"k{at}"], [f"k{at + 1}"], {}) for at in range(300)]
    ends = [("ReduceMax", ["k300"], ["m"], {"keepdims": 0}), ("Add", ["c", "m"], ["y"], {})]
    model = network(("ConstantOfShape", ["s"], ["z"], {}), ("Exp", ["z"], ["k0"], {}), *roots, *ends, s=[1 << 21])
    began = time.process_time()
    loaded = lowbit.load(model)
    assert time.process_time() - began < 8
    assert "ReduceMax" in [node.op_type for node in loaded.graph]

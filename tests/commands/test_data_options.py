"""--feed, --input-size and arrays for several inputs on the command line."""

import json

import numpy as np
import onnx
import pytest

import lowbit
import many_inputs
from command_line import run
from graphs import make, make_node
from lowbit.graph.sizes import parse_sizes

pytestmark = pytest.mark.usefixtures("quick_measuring")


@pytest.fixture
def folder(tmp_path):
    case = many_inputs.tokens()
    onnx.save(case.model, tmp_path / "tokens.onnx")
    np.savez(tmp_path / "train.npz", **case.samples(40))
    np.savez(tmp_path / "test.npz", **case.samples(12, seed=9), labels=np.arange(12) % 4)
    return tmp_path


def test_arrays_for_two_inputs(folder, capsys):
    file = folder / "int8.onnx"
    assert run("quantize", folder / "tokens.onnx", "-r", "int8", "--calibration", folder / "train.npz", "-o", file) == 0
    capsys.readouterr()
    assert run("measure", folder / "tokens.onnx", file, "--data", folder / "test.npz", "--runs", 2, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[1]["kl"] < 0.05


def test_an_input_that_is_the_same_for_every_sample(folder, capsys):
    with np.load(folder / "train.npz") as arrays:
        np.savez(folder / "ids.npz", ids=arrays["ids"])
    words = (
        "quantize",
        folder / "tokens.onnx",
        "-r",
        "int8",
        "--calibration",
        folder / "ids.npz",
        "-o",
        folder / "a.onnx",
    )
    assert run(*words) == 2
    assert "no array for 'mask'" in capsys.readouterr().err
    assert run(*words, "--feed", "mask=ones") == 0
    assert run(*words, "--feed", "masks=ones") == 2
    assert "Its inputs are ids, mask" in capsys.readouterr().err


@pytest.fixture
def open_sizes(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        make_node("Conv", "x w", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        make_node("Relu", "c", "r"),
        make_node("Conv", "r v", "y"),
    ]
    weights = {"w": rng.standard_normal((8, 3, 3, 3)), "v": rng.standard_normal((2, 8, 1, 1))}
    onnx.save(make(nodes, {"x": ["n", 3, "h", "w"]}, {"y": ["n", 2, "a", "b"]}, weights), tmp_path / "open.onnx")
    return tmp_path


def test_open_height_and_width_are_set(open_sizes, capsys):
    path = open_sizes / "open.onnx"
    assert run("inspect", path) == 2
    assert "Give it, such as --input-size x=1x3x224x224, " in capsys.readouterr().err
    assert run("inspect", path, "--input-size", "x=1x3x224x224") == 0
    capsys.readouterr()
    assert run("inspect", path, "--input-size", "1x3x32x48", "--json") == 0
    inspected = json.loads(capsys.readouterr().out)
    assert inspected["inputs"] == [{"name": "x", "shape": [1, 3, 32, 48], "dtype": "float32"}]
    assert inspected["macs"] == 16 * 24 * (8 * 27 + 16)
    np.savez(open_sizes / "x.npz", x=np.random.default_rng(1).random((20, 3, 32, 48), np.float32) - 0.5)
    words = ("quantize", path, "-r", "int8", "--calibration", open_sizes / "x.npz", "-o", open_sizes / "int8.onnx")
    assert run(*words, "--input-size", "x=-x3x32x48") == 0
    assert lowbit.load(open_sizes / "int8.onnx").inputs[0].shape == ("n", 3, 32, 48)


@pytest.mark.parametrize("size", ["32", "1x3x32", "z=1x3x32x32", "1x4x32x32", "1x3x0x32", "1x3xax32"])
def test_sizes_that_do_not_fit_are_refused(size, open_sizes, capsys):
    assert run("inspect", open_sizes / "open.onnx", "--input-size", size) == 2
    assert "rite NAME=" in capsys.readouterr().err


def test_sizes_by_name():
    assert parse_sizes(["a=1x3x-x8", "4x4"]) == {"a": (1, 3, None, 8), "": (4, 4)}

"""Every file is a valid ONNX model: sorted, typed, and one that lowbit itself opens again."""

import dataclasses
import functools

import numpy as np
import onnx
import pytest

import lowbit
import networks
from lowbit import FileForm
from lowbit.cli import app
from lowbit.formats.onnx.archive import pack, unpack
from lowbit.graph.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def model():
    how = Preprocessing(networks.SIDE, networks.SIDE, mean=(0.5, 0.4, 0.5), std=(0.25,) * 3)
    return dataclasses.replace(lowbit.load(networks.residual_network()), preprocessing=how)


@pytest.fixture(scope="module")
def images():
    shape = (12, networks.SIDE, networks.SIDE, 3)
    return np.random.default_rng(3).integers(0, 256, size=shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def quantized(model, images):
    """What quantizes the model; each recipe once."""

    def quantize(recipe):
        steps = None if recipe == "int8" else ()
        return lowbit.quantize(model, recipe, calibration=images, effort="fast", steps=steps)

    return functools.cache(quantize)


@pytest.mark.parametrize("recipe", ["float", "int8", "linear3", "cluster4"])
@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize(("taken", "layout"), [("float32", "NHWC"), ("uint8", "NHWC"), ("uint8", "NCHW")])
def test_the_checker_finds_nothing(quantized, recipe, to, taken, layout):
    content = quantized(recipe).to_bytes(FileForm(to, taken, layout))
    onnx.checker.check_model(content, full_check=True)
    assert unpack(pack(content)) == content
    # Its own reader does not trust the order of nodes either.
    assert lowbit.load(content).input.name == "x"


def test_inspect_opens_what_quantize_wrote(tmp_path, images, capsys):
    onnx.save(networks.residual_network(), tmp_path / "net.onnx")
    np.savez(tmp_path / "seen.npz", x=images)
    how = ["--calibration", tmp_path / "seen.npz", "--mean", "0.5", "--std", "0.25", "--effort", "fast"]
    words = ["quantize", tmp_path / "net.onnx", "-r", "int8", *how, "-o", tmp_path / "q.onnx"]
    app([str(word) for word in words], standalone_mode=False)
    app(["inspect", str(tmp_path / "q.onnx")], standalone_mode=False)
    assert "stem" in capsys.readouterr().out

"""What weights are in files that store them as codes: shapes, values, parameters and true bits, as `inspect` shows."""

import json

import numpy as np
import pytest

import lowbit
from command_line import run
from graphs import make, make_node
from lowbit.graph.ops import layers

SIDE = 10
x = np.random.default_rng(1).normal(size=(16, 3, SIDE, SIDE)).astype(np.float32)
BOOKS = ("cluster3", "icluster2")


@pytest.fixture(scope="module")
def model():
    """Two layers that are worth unpacking, and a last one that is not."""
    rng = np.random.default_rng(2)
    sizes = {"w1": (48, 3, 3, 3), "w2": (48, 48, 3, 3), "w3": (40, 48, 3, 3), "w4": (4, 40, 1, 1)}
    weights = {name: rng.normal(scale=0.1, size=shape) for name, shape in sizes.items()}
    names = ["x", "a", "b", "c", "y"]
    nodes = [make_node("Conv", f"{names[i]} w{i + 1}", names[i + 1]) for i in range(4)]
    return lowbit.load(make(nodes, {"x": ["n", 3, SIDE, SIDE]}, ["y"], weights))


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    """Files by recipe, and what they were written from."""
    folder, made = tmp_path_factory.mktemp("files"), {}
    for recipe in ("int8", "int4", "int6", "icluster2", "linear3", "cluster3", "float16w"):
        quantized = lowbit.quantize(model, recipe, calibration=list(x), steps=())
        made[recipe] = quantized, quantized.save(folder / f"{recipe}.onnx")
    return made


def inspected(path, capsys):
    assert run("inspect", path, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("recipe", ["int8", "int4", "int6", "icluster2", "linear3", "cluster3", "float16w"])
def test_every_layer_has_its_shape_and_true_bits(recipe, model, written, capsys):
    quantized, path = written[recipe]
    found = inspected(path, capsys)["layers"]
    floats = {layer.node: layer for layer in lowbit.cost(model).layers}
    assert found
    narrow = 0
    for layer in found:
        wanted = floats[layer["node"]]
        assert layer["weight_shape"] == list(wanted.weight_shape)
        assert layer["parameters"] >= np.prod(wanted.weight_shape)
        assert 1.2 * wanted.weight_min < layer["weight_min"] < 0 < layer["weight_max"] < 1.2 * wanted.weight_max
        if recipe == "float16w":
            assert layer["stored_as"] == "float16"
            continue
        weight = next(each.weight for each in layers(model) if each.node == layer["node"])
        bits = quantized.graph.weights[weight].scheme.bits
        names = {f"int{bits}", f"{bits}-bit book"}
        # Those too small to be worth unpacking take a byte each.
        assert layer["stored_as"] in names | {"int8"}
        narrow += layer["stored_as"] in names
        assert (layer["stored_as"] == f"{bits}-bit book") <= (recipe in BOOKS)
    assert narrow or recipe == "float16w"


def test_books_are_called_so(written, capsys):
    for recipe in BOOKS:
        kinds = {layer["stored_as"] for layer in inspected(written[recipe][1], capsys)["layers"]}
        assert any(kind.endswith("-bit book") for kind in kinds), kinds


def test_the_cost_of_a_file_counts_its_codes(model, written):
    whole = sum(layer.weight_shape != () and int(np.prod(layer.weight_shape)) for layer in lowbit.cost(model).layers)
    for _, path in written.values():
        counted = lowbit.cost(path)
        assert sum(int(np.prod(layer.weight_shape)) for layer in counted.layers) == whole
        assert counted.parameters >= whole
        assert counted.macs >= lowbit.cost(model).macs


def test_an_archive_is_looked_into_as_well(written, tmp_path, capsys):
    assert run("pack", written["linear3"][1], "-o", tmp_path / "a.lowbit") == 0
    capsys.readouterr()
    assert all(layer["weight_shape"] for layer in inspected(tmp_path / "a.lowbit", capsys)["layers"])


def test_a_terminal_shows_the_type(written, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    assert run("inspect", written["int4"][1]) == 0
    shown = capsys.readouterr().out
    assert "int4" in shown or "int5" in shown
    assert "float32" not in shown

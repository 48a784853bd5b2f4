"""A comparison that is taken up after it was stopped gives the same files and the same figures, without the work."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import lowbit
import networks
from lowbit.calibration.batches import as_runs
from lowbit.errors import OutputError
from lowbit.files import sha256_file
from lowbit.formats.file_form import FileForm
from lowbit.measurement import compare as module
from lowbit.measurement.conditions import CompareOptions, Conditions
from lowbit.measurement.engine_files import Destination
from lowbit.measurement.kept import Kept
from test_cli import run as command

pytestmark = pytest.mark.usefixtures("quick_measuring")

CONDITIONS = Conditions(runs=0, with_memory=False)
RECIPES = ("int8", "linear8")


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.depthwise_network())  # whose channels int8 rescales


@pytest.fixture
def run(model, tmp_path, monkeypatch):
    """Compare into a new folder; which recipes were worked on, and the comparison."""
    asked = []
    quantize = module.quantize
    monkeypatch.setattr(module, "quantize", lambda m, plan, **rest: asked.append(plan) or quantize(m, plan, **rest))

    def compared(name, kept="kept", *, seed=1, effort="fast", recipes=RECIPES):
        asked.clear()
        comparison = lowbit.compare(
            model,
            networks.inputs(4, seed=7),
            calibration=networks.inputs(8, seed=seed),
            recipes=recipes,
            folder=tmp_path / name,
            options=CompareOptions(effort=effort, kept=kept and tmp_path / kept),
            conditions=CONDITIONS,
        )
        return [plan.recipe.name for plan in asked], comparison

    return compared


def figures(comparison):
    """All but what a clock says."""
    rows = [dataclasses.replace(row, load_ms=None) for row in comparison.rows]
    steps = [dataclasses.replace(row.details, steps=()) for row in rows]
    return [dataclasses.replace(row, details=each) for row, each in zip(rows, steps, strict=True)]


def test_finished_recipes_are_taken_up(run, tmp_path):
    worked, first = run("first", effort="balanced")
    assert worked == ["float", *RECIPES]
    worked, second = run("second", effort="balanced")
    assert worked == []
    assert figures(first) == figures(second)
    assert [row.details.steps for row in first.rows] == [row.details.steps for row in second.rows]
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
    assert any((place / "weights.npz").exists() for place in (tmp_path / "kept").iterdir())


def test_a_recipe_that_is_missing_is_all_that_is_done(run):
    run("first", recipes=("linear8",))
    assert run("second")[0] == ["int8"]


@pytest.mark.parametrize("other", [{"seed": 2}])
def test_what_was_made_of_something_else_is_not_taken(run, other):
    run("first", recipes=("int8",))
    assert "int8" in run("second", recipes=("int8",), **other)[0]


DAMAGE = {
    "a torn index": lambda place: cut(place / "index.json"),
    "no index": lambda place: (place / "index.json").unlink(),
    "not an object": lambda place: (place / "index.json").write_text("[]"),
    "nested": lambda place: (place / "index.json").write_text("[" * 3000 + "]" * 3000),
    "a number for text": lambda place: change(place, target=1),
    "a file cut": lambda place: cut(place / "memory-int8.onnx"),
    "a file gone": lambda place: (place / "memory-int8.onnx").unlink(),
    "weights cut": lambda place: cut(place / "weights.npz"),
    "weights that are no arrays": lambda place: objects(place),
    "no files": lambda place: change(place, files=[]),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def change(place, **values):
    index = json.loads((place / "index.json").read_text())
    (place / "index.json").write_text(json.dumps({**index, "known": index["known"] | values}))


def objects(place):
    """A pickle, as a stranger would put it there, with the hash that the index names."""
    np.savez(place / "weights.npz", np.array([object()], object))
    index = json.loads((place / "index.json").read_text())
    index["files"] = {name: sha256_file(place / name) for name in index["files"]}
    (place / "index.json").write_text(json.dumps(index))


def test_what_is_damaged_is_made_again(run, model, tmp_path):
    run("first", recipes=("int8",), effort="balanced")
    decision = lowbit.plan(model, "int8", effort="balanced")
    data = as_runs(model, lowbit.open_data(networks.inputs(8, seed=1), model))
    kept = Kept(tmp_path / "kept", Destination(model, tmp_path / "first", FileForm()), data)
    assert kept.take(decision, ["onnxruntime"]) is not None
    place = next(path.parent for path in (tmp_path / "kept").rglob("memory-int8.onnx"))
    shutil.copytree(place, tmp_path / "sound")
    for damage, make in DAMAGE.items():
        make(place)
        assert kept.take(decision, ["onnxruntime"]) is None, damage
        shutil.rmtree(place)
        shutil.copytree(tmp_path / "sound", place)
    assert kept.take(decision, ["onnxruntime"]) is not None


def test_a_link_is_not_followed(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="link"):
        run("first", "link", recipes=("linear8",))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nothing_is_kept_unless_asked_for(run, tmp_path):
    run("first", None, recipes=("linear8",))
    assert {path.name for path in tmp_path.iterdir()} == {"first"}


def test_the_command_takes_up_what_a_stopped_run_left_and_removes_it_when_all_is_done(tmp_path, monkeypatch, capsys):
    (tmp_path / "net.onnx").write_bytes(networks.residual_network().SerializeToString())
    np.savez(tmp_path / "data.npz", x=networks.inputs(3))
    line = ["compare", tmp_path / "net.onnx", "--data", tmp_path / "data.npz", "--recipes", "linear8", "--runs", 0,
            "--engine", "onnxruntime", "--out", tmp_path / "out"]  # fmt: skip

    def stopped(*_, **__):
        raise OutputError("stopped.")

    monkeypatch.setattr(module, "measure", stopped)
    assert command(*line, "--resume", capsys=capsys)[0] == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lowbit-resume"]
    monkeypatch.undo()
    monkeypatch.setattr(module, "quantize", lambda *_, **__: pytest.fail("it begins again"))
    assert command(*line, "--resume", capsys=capsys)[0] == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"net-float.onnx", "net-linear8.onnx", "results.json", "results.csv", "report.html"}

"""An archive whose search was stopped is taken up after the passes that were finished, and comes out the same."""

import json
import shutil

import numpy as np
import pytest

import lowbit
from graphs import make, make_node
from lowbit.errors import OutputError
from lowbit.formats.onnx import archive
from lowbit.quantization.pack import pack
from lowbit.quantization.passes.sensitivity import Sensitivity
from lowbit.quantization.rate import search as module
from lowbit.quantization.rate.allocation import Allocation
from lowbit.quantization.rate.goal import Goal
from lowbit.quantization.rate.kept import KeptPasses, Tried
from lowbit.quantization.rate.packed import Packed, Trial
from test_cli import run as command

SIZE = Goal(size=1800)


def network():
    """Two layers, so that a pass takes a moment."""
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(16, 3, 3, 3)) / 5, "v": random.normal(size=(16, 5)) / 4}
    nodes = [
        make_node("Conv", "x w", "c", kernel_shape=[3, 3]),
        make_node("Relu", "c", "r"),
        make_node("ReduceMean", "r", "mean", axes=[2, 3], keepdims=0),
        make_node("MatMul", "mean v", "scores"),
    ]
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    return make(nodes, {"x": ["n", 3, 6, 6]}, {"scores": ["n", 5]}, arrays)


def inputs(count, seed):
    return np.random.default_rng(seed).normal(size=(count, 3, 6, 6)).astype(np.float32)


@pytest.fixture
def model():
    return lowbit.load(network())


@pytest.fixture
def packed(model, tmp_path, monkeypatch):
    """Pack for a goal; which passes were made, and what came out: None if it was stopped at that many."""
    passes, limit = [], []
    monkeypatch.setattr(module, "MOST_TRIALS", 2)

    def counting(name, run):
        def counted(*args, **rest):
            if len(passes) in limit:
                raise KeyboardInterrupt
            passes.append(name)
            return run(*args, **rest)

        return counted

    monkeypatch.setattr(Allocation, "solve", counting("rate", Allocation.solve))
    monkeypatch.setattr(module, "follow", counting("fixed", module.follow))
    monkeypatch.setattr(module, "sensitivities", counting("costs", module.sensitivities))

    def run(goal=SIZE, kept="kept", *, seed=5, stop=None):
        passes.clear()
        limit[:] = [stop]
        given = {"calibration": lowbit.open_images(inputs(8, seed), None), "effort": "fast", "threads": 1}
        if stop is None:
            made = pack(model, goal, kept=kept and tmp_path / kept, **given)
            return list(passes), made
        with pytest.raises(KeyboardInterrupt):
            pack(model, goal, kept=tmp_path / kept, **given)
        return list(passes), None

    return run


def test_finished_passes_are_taken_up_for_a_size(packed):
    all_passes, wanted = packed(kept=None)
    assert {"costs", "rate", "fixed"} <= set(all_passes)
    last = len(all_passes) - 1
    assert packed(stop=last)[0] == all_passes[:last]
    rest, resumed = packed()
    assert rest == all_passes[last:]
    assert (resumed.archive, resumed.content, resumed.trials) == (wanted.archive, wanted.content, wanted.trials)
    none, again = packed()
    assert none == []
    assert (again.archive, again.content, again.trials) == (wanted.archive, wanted.content, wanted.trials)
    # Of other samples, or for another goal, nothing is taken.
    assert packed(seed=6, stop=1)[0] == ["costs"]
    assert packed(Goal(size=1700), stop=1)[0] == ["costs"]


def test_finished_passes_are_taken_up_for_a_drop(packed, model, monkeypatch):
    monkeypatch.setattr(module, "DROP_BITS", (8.0, 4.0))
    data = lowbit.open_data({"x": inputs(40, 9)}, model)
    goal = Goal(max_drop=50.0, data=data)
    all_passes, wanted = packed(goal, None)
    assert all_passes == ["costs", "rate", "rate"]
    packed(goal, stop=2)
    rest, resumed = packed(goal)
    assert rest == ["rate"]
    assert (resumed.archive, resumed.trials) == (wanted.archive, wanted.trials)
    assert resumed.certificate == wanted.certificate is not None


TRIAL = Trial("rate", 1e-3, 1000, 2.5, 0.01, "KL", None)
COSTS = {"conv": Sensitivity(0.5, 0.25, ((0.1, 40.0), (0.2, 30.0)))}


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def change(place, known):
    index = json.loads((place / "index.json").read_text())
    (place / "index.json").write_text(json.dumps({**index, "known": known}))


DAMAGE = {
    "a torn index": lambda place: cut(place / "index.json"),
    "no index": lambda place: (place / "index.json").unlink(),
    "a list": lambda place: (place / "index.json").write_text("[]"),
    "files in a list": lambda place: (place / "index.json").write_text('{"files": [], "known": {}}'),
    "nested": lambda place: (place / "index.json").write_text("[" * 3000 + "]" * 3000),
    "no file": lambda place: (place / "index.json").write_text('{"files": {"gone": ""}, "known": {}}'),
    "nothing known": lambda place: change(place, []),
    "a number for a text": lambda place: change(place, {"trial": {"recipe": 1}, "distances": [], "layers": [1]}),
}


def test_what_is_damaged_is_made_again(tmp_path):
    kept = KeptPasses(tmp_path / "kept", ("model",))
    content = network().SerializeToString()
    made, tried = Packed(archive.pack(content), content, trials=(TRIAL,)), Tried(TRIAL, (0.5, 0.25), 1e-3, 0.9)
    kept.keep(made, tried, "fast", 1.5)
    assert kept.sensitivities(lambda: COSTS) == COSTS
    shutil.copytree(tmp_path / "kept", tmp_path / "sound")
    for damage, do in DAMAGE.items():
        assert kept.take("fast", 1.5) == (made, tried)
        assert kept.sensitivities(lambda: pytest.fail("measured again")) == COSTS
        for place in (tmp_path / "kept").iterdir():
            do(place)
        assert kept.take("fast", 1.5) is None, damage
        assert kept.sensitivities(dict) == {}, damage
        shutil.rmtree(tmp_path / "kept")
        shutil.copytree(tmp_path / "sound", tmp_path / "kept")
    cut(next((tmp_path / "kept").rglob("*.lowbit")))
    assert kept.take("fast", 1.5) is None


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="link"):
        KeptPasses(tmp_path / "link").sensitivities(lambda: COSTS)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_command_takes_up_what_a_stopped_run_left_and_removes_it_when_the_archive_is_written(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "net.onnx").write_bytes(network().SerializeToString())
    np.savez(tmp_path / "data.npz", x=inputs(8, 5))
    line = ["pack", tmp_path / "net.onnx", "--size", SIZE.size, "--calibration", tmp_path / "data.npz",
            "--effort", "fast", "-o", tmp_path / "out.lowbit"]  # fmt: skip

    def stopped(*_):
        raise KeyboardInterrupt

    fixed = module.Search.fixed
    monkeypatch.setattr(module, "MOST_TRIALS", 2)
    monkeypatch.setattr(module.Search, "fixed", stopped)
    code, _, error = command(*line, "--resume", capsys=capsys)
    assert code == 130
    assert "; --resume goes on with what is finished" in error
    (kept,) = tmp_path.glob(".*")
    assert kept.name.startswith(".lowbit-resume-")
    monkeypatch.setattr(module.Search, "fixed", fixed)
    monkeypatch.setattr(Allocation, "solve", lambda *_: pytest.fail("it begins again"))
    assert command(*line, "--resume", capsys=capsys)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "data.npz", "out.lowbit"}
    code, _, error = command("pack", tmp_path / "net.onnx", "--resume", "-o", tmp_path / "o.lowbit", capsys=capsys)
    assert code == 2
    assert "--resume has no effect without a goal" in error

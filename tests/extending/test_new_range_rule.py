"""A range rule is one function and one row: with it the recipe, the plan, the command and the file follow."""

import numpy as np
import pytest

import lowbit
import networks
from lowbit.calibration.ranges import RANGE_RULES
from lowbit.cli import app
from lowbit.engines import open_session


def half(statistics, levels):
    """Half of what was seen."""
    return min(statistics.low / 2, 0.0), max(statistics.high / 2, 0.0)


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setitem(RANGE_RULES, "half", half)


def test_the_file_covers_what_the_rule_says(tmp_path):
    model, images = lowbit.load(networks.residual_network()), networks.inputs(16)
    full, halved = (
        lowbit.quantize(model, lowbit.parse_recipe("int8", ranges=name), calibration=images, steps=())
        for name in ("minmax", "half")
    )
    for name, codes in halved.graph.activations.items():
        assert codes.scale == pytest.approx(full.graph.activations[name].scale / 2, rel=0.02)
    answers = [open_session(each.to_bytes()).run({"x": images})["logits"] for each in (full, halved)]
    assert np.abs(answers[0] - answers[1]).max() > 0


def test_the_command_knows_it(tmp_path, capsys):
    import onnx

    onnx.save(networks.residual_network(), tmp_path / "m.onnx")
    np.savez(tmp_path / "seen.npz", x=networks.inputs(8))
    words = ["quantize", tmp_path / "m.onnx", "-r", "int8", "--ranges", "half", "--calibration", tmp_path / "seen.npz"]
    app([str(word) for word in (*words, "-o", tmp_path / "q.onnx")], standalone_mode=False)
    assert (tmp_path / "q.onnx").exists()

"""A recipe is one function and one row: the plan, the command's list and the file follow."""

import numpy as np
import pytest

import lowbit
import networks
from lowbit.cli import app
from lowbit.engines import open_session
from lowbit.quantization.planning.recipes import RECIPES, Recipe
from lowbit.schemes.linear import Linear


def coarse(bits):
    return Recipe(f"coarse{bits}", Linear(bits, per="tensor", symmetric=True))


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setitem(RECIPES, "coarse", (range(3, 7), coarse, "one scale per tensor"))


def test_it_is_planned_quantized_and_run():
    model, images = lowbit.load(networks.residual_network()), networks.inputs(16)
    quantized = lowbit.quantize(model, "coarse5", calibration=images, effort="fast")
    assert {tensor.given.per for tensor in quantized.plan.quantized} == {"tensor"}
    answers = open_session(quantized.to_bytes()).run({"x": images})["logits"]
    exact = open_session(model.to_bytes()).run({"x": images})["logits"]
    assert 0 < np.abs(answers - exact).max() < np.abs(exact).max()


def test_the_command_lists_it(capsys):
    app(["recipes"], standalone_mode=False)
    assert "coarse3..6" in capsys.readouterr().out
    with pytest.raises(lowbit.LowbitError, match="from 3 to 6"):
        lowbit.parse_recipe("coarse8")

"""A step is one function and one row: it is taken where the plan names it, and kept where it brings the file closer."""

import dataclasses

import pytest

import lowbit
import networks
from lowbit.quantization import quantize as module
from lowbit.quantization.passes.steps import STEPS, Step
from lowbit.quantization.planning.steps import ROUNDING


@pytest.mark.parametrize(("tolerance", "kept"), [(1e9, True), (0.0, False)])
def test_it_is_tried_judged_and_reported(monkeypatch, tolerance, kept):
    def double(before, images, threads, progress):
        """The same codes with all biases twice as large: nobody wants that."""
        model = before.base
        biases = {name: 2 * array for name, array in model.weights.items() if name.endswith(".bias")}
        return dataclasses.replace(before, graph=dataclasses.replace(before.graph, float_values=biases), note="doubled")

    monkeypatch.setitem(STEPS, "doubled biases", Step(double, lambda plan: tolerance))
    decide = module.plan
    monkeypatch.setattr(
        module, "plan", lambda *given, **how: dataclasses.replace(decide(*given, **how), steps=("doubled biases",))
    )
    model = lowbit.load(networks.residual_network())
    quantized = lowbit.quantize(model, "linear4", calibration=networks.inputs(16))
    (result,) = quantized.steps
    assert (result.name, result.kept, result.note) == ("doubled biases", kept, "doubled")
    assert result.after > result.before
    assert bool(quantized.graph.float_values) == kept


def test_every_step_that_a_plan_can_name_has_a_row():
    decision = lowbit.plan(lowbit.load(networks.residual_network()), "int4")
    assert ROUNDING in decision.steps
    assert set(decision.steps) <= set(STEPS)

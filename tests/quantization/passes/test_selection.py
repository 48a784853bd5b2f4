"""What the steps bring is kept where images say so that nothing was fitted to."""

from dataclasses import replace

import numpy as np
import pytest

import lowbit
import networks
from lowbit.progress import SILENT
from lowbit.quantization.passes import steps
from lowbit.quantization.passes.candidate import plain_candidate
from lowbit.quantization.passes.selection import Selection
from lowbit.quantization.passes.steps import STEPS, Step
from lowbit.quantization.passes.validation import Validation, fitting_and_judging
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.steps import BIAS, EQUALIZATION, ROUNDING


def images_of(count, *, seed=1, brightness=1.0):
    return lowbit.open_images(list(brightness * networks.inputs(count, seed=seed)), None, values="model")


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network(depthwise_scale=3.0))


def selection(model, recipe, fitting, judging, *, effort="balanced"):
    decision = plan(model, recipe, effort=effort)
    return Selection(model, plain_candidate(model, decision, fitting, 0, SILENT), fitting, judging, 0)


@pytest.mark.parametrize("name", [BIAS, ROUNDING])
def test_what_is_closer_where_it_was_fitted_alone_is_dropped(model, name):
    """Images thirty times brighter say little of how weights should be for the others."""
    fitting, judging = images_of(48, brightness=30.0), images_of(32, seed=5)
    chosen = selection(model, "linear2", fitting, judging)
    first = chosen.current
    before = Validation(model, fitting).distances(first.graph).mean
    chosen.take(name, SILENT)
    result = chosen.results[-1]
    assert result.fitted < 0.8 * before
    assert result.after > result.before
    assert not result.kept
    assert chosen.current.graph is first.graph


def test_each_step_begins_from_what_was_kept(model, monkeypatch):
    begun = []

    def shifted(amount):
        def take(before, images, threads, progress):
            begun.append(before.note)
            biases = {"fc.bias": before.graph.float_values.get("fc.bias", model.weights["fc.bias"]) + amount}
            return replace(before, graph=replace(before.graph, float_values=biases), note=f"by {amount[0]:g}")

        return take

    x = images_of(32)
    chosen = selection(model, "linear8", x, x)
    for name, amount in (("away", 2.0), ("back", -2.0), ("further", -1.0)):
        by = np.float32([amount, 0, 0, 0, 0])
        monkeypatch.setitem(STEPS, name, Step(shifted(by), lambda plan, amount=amount: np.inf if amount > 0 else 1.0))
        chosen.take(name, SILENT)
    assert [result.kept for result in chosen.results] == [True, True, False]
    assert begun == ["", "by 2", "by -2"]
    away, back, further = chosen.results
    assert back.before == away.after > 100 * away.before
    assert further.before == back.after == pytest.approx(away.before, rel=1e-3)
    np.testing.assert_allclose(chosen.current.graph.float_values["fc.bias"], model.weights["fc.bias"], atol=1e-6)


def test_a_step_that_gives_the_same_graph_is_not_judged(model, monkeypatch):
    monkeypatch.setitem(STEPS, "idle", Step(lambda before, *_: replace(before, note="idle"), lambda plan: np.inf))
    x = images_of(16)
    chosen = selection(model, "linear4", x, x)
    chosen.take("idle", SILENT)
    (result,) = chosen.results
    assert (result.kept, result.note) == (False, "idle")
    assert result.before == result.after


@pytest.mark.parametrize(
    ("shifts", "kept"),
    [
        ({"balanced": 1.02, "best": 0.5}, [True, True]),
        ({"balanced": 1.02, "best": 1.03}, [True, False]),
        # One that was dropped leaves no doubt for the next to benefit from.
        ({"balanced": 1.4, "best": 1.02}, [False, False]),
        ({"balanced": 1.4, "best": 0.5}, [False, True]),
    ],
)
def test_more_effort_has_to_judge_better(model, monkeypatch, shifts, kept):
    """A bias is off by so many times as much as before; a tenth farther is given the benefit of the doubt."""
    off = np.float32([0.5, 0, 0, 0, 0])

    def shifted(before, images, threads, progress):
        values = {"fc.bias": model.weights["fc.bias"] + off * shifts.get(before.plan.effort, 1.0)}
        return replace(before, graph=replace(before.graph, float_values=values), note=before.plan.effort)

    monkeypatch.setitem(STEPS, ROUNDING, Step(shifted, lambda plan: 1.1, searches=True))
    x = images_of(32)
    chosen = selection(model, "linear8", x, x, effort="best")
    monkeypatch.setitem(STEPS, "off", Step(shifted, lambda plan: np.inf))
    shifts_at_best = shifts.pop("best")
    chosen.take("off", SILENT)
    shifts["best"] = shifts_at_best
    chosen.take(ROUNDING, SILENT)
    assert [(result.note, result.kept) for result in chosen.results[1:]] == list(
        zip(("balanced", "best"), kept, strict=True)
    )


def test_best_begins_with_what_balanced_gives(model):
    steps = lowbit.quantize(model, "linear3", calibration=images_of(96), effort="best").steps
    notes = [step.note for step in steps if step.name == ROUNDING]
    assert notes[:2] == ["balanced", "best"]
    first = next(step for step in steps if step.name == ROUNDING)
    alone = lowbit.quantize(model, "linear3", calibration=images_of(96), effort="balanced").steps[-1]
    assert (first.before, first.after) == (alone.before, alone.after)


@pytest.mark.parametrize("recipe", ["int8", "linear3", "cluster2"])
def test_best_is_never_judged_worse_than_balanced(recipe):
    model, images = lowbit.load(networks.depthwise_network(seed=1, spread=20.0)), images_of(64, seed=5)
    validation = Validation(model, fitting_and_judging(model, images)[1])
    balanced, best = (
        validation.distances(lowbit.quantize(model, recipe, calibration=images, effort=effort).graph)
        for effort in ("balanced", "best")
    )
    assert best.mean <= balanced.mean * (1 + 1e-9)


def test_rounding_of_an_equalized_network_is_tried_without_equalization_too():
    model = lowbit.load(networks.depthwise_network(seed=1, spread=20.0))
    steps = lowbit.quantize(model, "linear4", calibration=images_of(64), effort="best").steps
    assert next(step for step in steps if step.name == EQUALIZATION).kept
    # What takes longest begins from the better of the two alone.
    assert [step.note for step in steps if step.name == ROUNDING] == [
        "balanced",
        "balanced, without equalization",
        "best",
    ]


@pytest.mark.parametrize("off", [0.0, 50.0])
def test_where_equalization_was_not_clearly_worse_rounding_begins_from_both(monkeypatch, off):
    model = lowbit.load(networks.depthwise_network(seed=1, spread=20.0))
    equalize = STEPS[EQUALIZATION].take

    def equalize_badly(*given):
        after = equalize(*given)
        bias = after.base.weights["fc.bias"] + np.float32([off, 0, 0, 0, 0])
        return replace(after, graph=replace(after.graph, float_values={"fc.bias": bias}))

    monkeypatch.setitem(STEPS, EQUALIZATION, Step(equalize_badly, lambda plan: 1e-6))  # which none reaches
    steps = lowbit.quantize(model, "linear4", calibration=images_of(64)).steps
    assert not next(step for step in steps if step.name == EQUALIZATION).kept
    rounded = [(step.note, step.kept) for step in steps if step.name == ROUNDING]
    assert rounded == [("balanced", True), ("balanced, with equalization", True)][: 1 if off else 2]


def test_how_far_channels_reach_is_taken_from_all_samples_and_ranges_from_those_that_fit(model, monkeypatch):
    """Few samples do not show it, and it is no answer that could be learnt by heart."""
    looked_at = {}

    def noting(name):
        measure = getattr(steps, name)

        def noted(model, *arguments, **options):
            looked_at[name] = next(each for each in arguments if hasattr(each, "digests"))
            return measure(model, *arguments, **options)

        monkeypatch.setattr(steps, name, noted)

    noting("channel_statistics")
    noting("measured_ranges")
    ill_scaled = lowbit.load(networks.depthwise_network())
    quantized = lowbit.quantize(ill_scaled, "int8", calibration=images_of(60), steps=["equalization"])
    assert "channels" in quantized.steps[0].note, "it was tried"
    fitting, judging = fitting_and_judging(ill_scaled, images_of(60))
    assert set(looked_at["channel_statistics"].digests) == {*fitting.digests, *judging.digests}
    assert set(looked_at["measured_ranges"].digests) == set(fitting.digests)

"""Forecasts are held against files: their bytes, and the order of what they lose."""

from dataclasses import replace

import numpy as np
import pytest

import lowbit
import networks
from lowbit.calibration.batches import as_runs
from lowbit.formats.onnx.shares import bytes_by_weight
from lowbit.graph.ops import layers
from lowbit.measurement.exam import Exam
from lowbit.quantization.passes.layerwise import LayerwisePass
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.quantization.planning.steps import ROUNDING
from lowbit.quantization.quantize import follow
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.problem import objective
from lowbit.searching import damage
from lowbit.searching.candidates import Candidate
from lowbit.searching.choices import menu, planned
from lowbit.searching.correction import family_factors
from lowbit.searching.damage import layer_damages
from lowbit.searching.limits import SearchLimits
from lowbit.searching.marks import Marks, marks
from lowbit.searching.proposals import Proposals, uniform_choice
from search_cases import network, samples

RECIPES = ("float", "float16w", "linear8", "linear4", "linear3", "linear2", "cluster4", "cluster2", "int8", "int4")


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def damages(model):
    images = as_runs(model, lowbit.open_data(samples(model, 24, seed=3), model))
    return layer_damages(model, images, {name: parse_recipe(name) for name in RECIPES}, threads=1)


@pytest.fixture(scope="module")
def offered(model, damages):
    return menu(model, damages, RECIPES, effort="best")


def mixtures(offered, count, names):
    random = np.random.default_rng(0)
    return [{weight: str(random.choice(names)) for weight in offered.options} for _ in range(count)]


def content_of(model, choice):
    return lowbit.quantize(model, planned(model, choice, "fast")).to_bytes()


@pytest.mark.parametrize("place", range(4))
def test_bytes_of_a_mixture_are_forecast_within_a_few_hundredths(place, model, damages):
    offered = menu(model, damages, RECIPES[:-2], effort="best")
    choice = mixtures(offered, 4, RECIPES[:-2])[place]
    assert offered.bytes_of(choice) == pytest.approx(len(content_of(model, choice)), rel=0.03)


def test_what_files_lose_is_forecast_in_its_order(model, offered):
    exam = Exam.of(model, as_runs(model, samples(model, 48, seed=2, labels=True)))
    chosen = [dict.fromkeys(offered.options, name) for name in ("linear8", "linear4", "linear2", "cluster4")]
    chosen += mixtures(offered, 8, ("linear8", "linear4", "linear3", "linear2", "cluster2"))
    forecast = [sum(offered.damage_by_family(choice).values()) for choice in chosen]
    measured = [marks(exam, content_of(model, choice)).distance for choice in chosen]
    ranks = [np.argsort(np.argsort(values)) for values in (forecast, measured)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8


def test_output_errors_are_those_of_the_file_where_channels_lie_apart():
    recipe = "linear3"
    model = lowbit.load(networks.depthwise_network())
    images = as_runs(model, lowbit.open_images(networks.inputs(32), None))
    damages = layer_damages(model, images, {recipe: parse_recipe(recipe)}, threads=1)
    errors = {each.node: each.errors[recipe] for each in damages}
    for layer, moments in LayerwisePass(model, images, ["conv1", "conv3", "conv4"], EFFORTS["fast"], threads=1):
        # The layer alone: behind others that are quantized it would make good what they lose.
        choice = {each.weight: recipe if each == layer else "float" for each in layers(model)}
        decision = replace(planned(model, choice, "fast"), steps=(ROUNDING,))
        codes = follow(model, decision, images).graph.weights[layer.weight]
        trained, rounded = map(layer.to_matrix, (model.weights[layer.weight], codes.decode()))
        lost = float(objective(trained, rounded, moments.second).sum())
        assert errors[layer.node] == pytest.approx(lost, rel=0.3), layer.node


def test_what_an_error_costs_is_what_files_show(model, damages):
    """Each layer alone in a file, on the samples that show it."""
    images = as_runs(model, lowbit.open_data(samples(model, 24, seed=3), model))
    exam = Exam.of(model, images)
    ratios = []
    for each in damages:
        for recipe in ("linear2", "linear3", "linear4"):
            decision = replace(planned(model, {each.weight: recipe}, "fast"), steps=(ROUNDING,))
            content = follow(model, decision, images).to_bytes()
            if recipe in each.errors:
                ratios.append(each.cost.of(each.errors[recipe]) / marks(exam, content).distance)
    # One test is off by a third to a half, and the ridge is that of other bits.
    off = np.log(ratios)
    assert abs(off.mean()) < 0.25
    assert np.median(abs(off)) < 0.4


def test_every_bit_less_costs_more(offered):
    for weight, options in offered.options.items():
        errors = {option.recipe: option.error for option in options}
        assert 0 == errors["float"] < errors["linear8"] < errors["linear4"] < errors["linear3"] < errors["linear2"], (
            weight
        )
        assert errors["float16w"] < errors["linear8"] < errors["int8"] < errors["int4"]
        assert errors["cluster4"] < errors["cluster2"]


def test_parts_of_weights_are_counted_once(model):
    content = content_of(model, {layer.weight: "cluster4" for layer in layers(model)})
    parts = bytes_by_weight(content)
    assert set(parts) == {layer.node for layer in layers(model)}
    assert 0.8 * len(content) < sum(parts.values()) < len(content)


def test_factors_of_families_are_found_where_files_show_them():
    random = np.random.default_rng(1)
    parts = [{"linear": a, "cluster": b} for a, b in random.uniform(0.01, 1, (12, 2))]
    measured = [2.0 * part["linear"] + 0.5 * part["cluster"] for part in parts]
    factors = family_factors(parts, measured)
    assert factors["linear"] == pytest.approx(2.0, rel=0.3)
    assert factors["cluster"] == pytest.approx(0.5, rel=0.3)


def test_uniform_files_teach_the_level_too(model, offered):
    decision = lowbit.plan(model, "linear4", effort="fast")
    assert uniform_choice(decision) == {each.tensor: f"linear{each.given.bits}" for each in decision.tensors}
    assert len(set(uniform_choice(decision).values())) > 1  # small layers get more bits
    flat = lowbit.plan(model, parse_recipe("linear4", extra_bits=0), effort="fast")
    seen = Marks(
        drop=0.0,
        expected=0.0,
        evidence=None,
        metric=0.0,
        distance=100 * sum(offered.damage_by_family(uniform_choice(flat)).values()),
    )
    proposals = Proposals((offered,), SearchLimits(max_drop=1.0), offered.bytes_of)
    taught = proposals.taught([Candidate("linear4", {}, flat, b"", seen, seen)])
    assert taught.factors["linear"] == pytest.approx(100, rel=0.1)
    assert proposals.taught([Candidate("plain", {}, replace(flat, steps=()), b"", seen, seen)]).factors == {}


def test_one_file_moves_the_level_of_all_families():
    factors = family_factors([{"linear": 0.1, "cluster": 0.1}], [0.6])
    assert factors["linear"] == pytest.approx(factors["cluster"])
    assert factors["linear"] == pytest.approx(3.0, rel=0.05)
    assert family_factors([{"linear": 0.1}], [float("inf")]) == {"linear": 1.0}


@pytest.mark.parametrize("share", [0.85, 1.1])
def test_what_files_take_is_weighed_and_the_size_is_filled(share, offered):
    size = offered.bytes_of(dict.fromkeys(offered.options, "linear3"))
    asked = []

    def weigh(choice):
        asked.append(choice)
        return round(share * offered.bytes_of(choice))

    limits = SearchLimits(max_size=size)
    found = Proposals((offered,), limits, weigh).least("damage", {})
    believed = Proposals((offered,), limits, offered.bytes_of).least("damage", {})
    assert 0.95 * size < found.bytes <= size
    assert (found.damage < believed.damage) == (share < 1)
    assert 1 < len(asked) <= 5


def test_without_a_limit_on_bytes_nothing_is_solved_twice(offered):
    asked = []
    proposals = Proposals((offered,), SearchLimits(max_drop=1.0), lambda choice: asked.append(choice) or 1)
    assert proposals.least("size", {"damage": 0.01}).bytes == 1
    assert len(asked) == 1


def test_samples_that_show_costs_are_not_those_that_codes_are_fitted_to(model, monkeypatch):
    fitted, shown = set(), []
    images = as_runs(model, lowbit.open_data(samples(model, 60, seed=3), model))

    class Told(LayerwisePass):
        def __init__(self, model, data, *more, **options):
            fitted.update(data.digests)
            super().__init__(model, data, *more, **options)

    class ToldRest(damage.Rest):
        def __init__(self, model, data, *more, **options):
            shown.append(set(data.digests))
            super().__init__(model, data, *more, **options)

    monkeypatch.setattr(damage, "LayerwisePass", Told)
    monkeypatch.setattr(damage, "Rest", ToldRest)
    layer_damages(model, images, {"linear4": parse_recipe("linear4")}, threads=1)
    assert len(shown) == 2
    assert all(group and not group & fitted for group in shown)
    assert not shown[0] & shown[1]

"""The rule that looks at the extremes of each image: nothing rare is clipped, and one image does not decide."""

import dataclasses
import math

import numpy as np
import pytest

import lowbit
import networks
from graphs import make, make_node
from lowbit.calibration.ranges import RANGE_RULES, extremes, minmax, output
from lowbit.calibration.statistics import calibrate
from lowbit.engines import open_session
from lowbit.graph.preprocessing import Preprocessing
from lowbit.quantization.passes import steps

SIDE = 40  # of a tensor that is sampled


def images_of(x):
    return lowbit.open_images(list(x), None, values="model")


def pictures(count, *, seed=0):
    """Images [count, 3, side, side]: many small values, and none that is rare."""
    return np.random.default_rng(seed).normal(size=(count, 3, SIDE, SIDE)).clip(-3, 3).astype(np.float32)


def network():
    """Two convolutions, whose first gives what it gets, and the sum of both."""
    generator = np.random.default_rng(0)
    weights = {"same": np.eye(3)[:, :, None, None], "w": generator.normal(scale=0.3, size=(4, 3, 3, 3))}
    nodes = [make_node("Conv", "x same", "c"), make_node("Conv", "c w", "y", pads=[1] * 4)]
    return lowbit.load(make(nodes, {"x": ["n", 3, SIDE, SIDE]}, ["y"], weights))


def statistics(x):
    return calibrate(network(), images_of(x), tensors=["c"]).tensors["c"]


def signal_to_noise(x, recipe, test):
    """Of the file's outputs, in dB."""
    model = network()
    content = lowbit.quantize(model, recipe, calibration=images_of(x), steps=()).to_bytes()
    exact, given = (open_session(each, threads=1).run({"x": test})["y"] for each in (model.to_bytes(), content))
    return 10 * np.log10(np.square(exact).mean() / np.square(given - exact).mean())


def test_the_extremes_of_each_image_are_measured():
    x = pictures(10)
    x[3, 1, 2, 2], x[7, 0, 5, 5] = 17, -19
    found = calibrate(network(), images_of(x), tensors=["c", "x"], batch=4)
    for name in ("c", "x"):
        rows = x.reshape(10, -1)
        np.testing.assert_allclose(found.tensors[name].lows, rows.min(axis=1), rtol=1e-5)
        np.testing.assert_allclose(found.tensors[name].highs, rows.max(axis=1), rtol=1e-5)
        assert (found.tensors[name].low, found.tensors[name].high) == pytest.approx((-19, 17))


def test_rare_peaks_in_many_images_are_not_clipped():
    """One value in 4,800, which the sample mostly misses: a detector finds by such values."""
    x = pictures(64)
    generator = np.random.default_rng(1)
    x[np.arange(64), 0, generator.integers(0, SIDE, 64), generator.integers(0, SIDE, 64)] = generator.uniform(9, 10, 64)
    seen = statistics(x)
    assert extremes(seen, 256)[1] > 9
    assert extremes(seen, 256)[1] >= output(seen, 256)[1]


@pytest.mark.parametrize("value", [100, 1e4, -1e4, 1e6])
@pytest.mark.parametrize("place", [(1, 7, 7), (1, 8, 0)], ids=["not sampled", "sampled"])
def test_one_pixel_of_one_image_costs_the_others_next_to_nothing(value, place):
    clean, test = pictures(64), pictures(16, seed=5)
    outlier = clean.copy()
    outlier[(20, *place)] = value
    histogram = statistics(outlier).histogram
    assert histogram.counts[np.abs(histogram.centers) > abs(value) / 2].any() == (place == (1, 8, 0))
    before, after = (signal_to_noise(x, "int8", test) for x in (clean, outlier))
    assert before > 30
    assert after > before - 3
    every = lowbit.parse_recipe("int8", ranges="minmax")
    assert signal_to_noise(outlier, every, test) < before - 15, "the outlier decides where all values count"


@pytest.mark.parametrize("rule", ["extremes", "output"])
def test_ranges_do_not_depend_on_units(rule):
    x = pictures(16)
    x[:, 0, 3, 3] = 8
    plain, scaled = (RANGE_RULES[rule](statistics(factor * x), 256) for factor in (1, 1024))
    np.testing.assert_allclose(scaled, np.multiply(plain, 1024), rtol=1e-6)


def test_of_few_images_none_is_left_out():
    x = pictures(16)
    x[3, 0, 0, 0] = 20
    assert extremes(statistics(x), 256)[1] == pytest.approx(20)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_hardly_ever_anything_but_zero_keeps_its_values(sign):
    x = np.zeros((64, 3, SIDE, SIDE), np.float32)
    x[20, 1, 3:9, 3:9] = sign * 5
    assert sorted(np.abs(extremes(statistics(x), 256))) == pytest.approx([0, 5], rel=0.01)


def test_without_outliers_nothing_is_clipped():
    seen = statistics(np.random.default_rng(3).uniform(-2, 2, (32, 3, SIDE, SIDE)).astype(np.float32))
    np.testing.assert_allclose(extremes(seen, 256), minmax(seen, 256), rtol=0.03)


def test_it_is_where_recipes_begin_and_the_other_rule_is_tried():
    model = lowbit.load(networks.residual_network())
    quantized = lowbit.quantize(model, "int8", calibration=networks.inputs(64), steps=["ranges"])
    (step,) = quantized.steps
    assert step.name == "narrower ranges"
    rule = RANGE_RULES["output" if step.kept else "extremes"]
    assert quantized.plan.range_rule == ("output" if step.kept else "extremes")
    low, high = rule(quantized.calibration.tensors["sum"], 256)
    assert quantized.graph.activations["sum"].scale == pytest.approx((high - low) / 255, rel=0.5)


def test_narrower_ranges_are_taken_where_images_that_judge_prefer_them():
    """Each image has a value far out, in a channel that hardly counts: clipping it costs nothing."""
    generator = np.random.default_rng(4)
    x = generator.normal(size=(96, 3, 16, 16)).astype(np.float32)
    x[np.arange(96), 2, generator.integers(0, 16, 96), generator.integers(0, 16, 96)] = 2000
    weights = {"w": generator.normal(size=(6, 3, 3, 3)) * np.array([1, 1, 1e-6]).reshape(1, 3, 1, 1)}
    model = lowbit.load(make([make_node("Conv", "x w", "y")], {"x": ["n", 3, 16, 16]}, ["y"], weights))
    quantized = lowbit.quantize(model, "int8", calibration=images_of(x), steps=["ranges"])
    (step,) = quantized.steps
    assert step.kept == (step.after < step.before)
    assert quantized.plan.range_rule == ("output" if step.kept else "extremes")
    assert quantized.plan.recipe.ranges == ("output" if step.kept else "auto")


def test_the_largest_numbers_have_a_range_too():
    """Far beyond them is more than float32 holds."""
    low, high = extremes(statistics(pictures(40) * np.float32(1e38)), 256)
    assert low == pytest.approx(-3e38, rel=0.01)
    assert high == pytest.approx(3e38, rel=0.01)


def test_narrower_ranges_leave_the_image_bytes_of_the_input(monkeypatch):
    monkeypatch.setattr(steps, "NARROWING_GAIN", math.inf)  # kept, whatever it brings
    how = Preprocessing(networks.SIDE, networks.SIDE)
    model = dataclasses.replace(lowbit.load(networks.residual_network(first=16)), preprocessing=how)
    quantized = lowbit.quantize(model, "int8", calibration=networks.inputs(16), steps=["ranges", "exact-input"])
    assert [step.name for step in quantized.steps] == ["input as image bytes", "narrower ranges"]
    assert quantized.plan.range_rule == "output"
    assert quantized.graph.byte_input is not None

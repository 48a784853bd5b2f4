"""One pass, the same whatever the batch, in memory that does not grow."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

import lowbit
import networks
from graphs import make, make_node
from lowbit.calibration.histogram import SAMPLES_PER_IMAGE, sample
from lowbit.calibration.statistics import batch_size_for, calibrate, image_size
from lowbit.engines import open_session
from lowbit.errors import ModelError
from lowbit.graph.summaries import with_summaries

SIDE = 48


def wide_network(after: str = "Identity"):
    """A tensor of 16 x 48 x 48 values per image, more than are sampled, and a small one."""
    weight = np.random.default_rng(0).normal(size=(16, 3, 3, 3)).astype(np.float32)
    nodes = [
        make_node("Conv", "x w", "c", name="conv", pads=[1] * 4),
        make_node(after, "c", "wide"),
        make_node("GlobalAveragePool", "wide", "y", name="pool"),
    ]
    return make(nodes, {"x": ["n", 3, SIDE, SIDE]}, ["y"], {"w": weight})


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(10, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return lowbit.load(wide_network("Neg"))


def images_of(x):
    return lowbit.open_images(list(x), None, values="model")


def test_large_tensors_are_summed_up_inside_the_runtime_as_outside(model, x):
    result = calibrate(model, images_of(x), tensors=["x", "wide", "y"], batch=4)
    values = {"x": x} | open_session(networks.with_outputs(model, ["wide", "y"])).run({"x": x})
    assert image_size(model, "wide") == 16 * SIDE * SIDE > SAMPLES_PER_IMAGE
    for name, array in values.items():
        statistics = result.tensors[name]
        assert (statistics.low, statistics.high) == pytest.approx((array.min(), array.max()), rel=1e-5)
        assert statistics.histogram.counts.sum() == sample(array).size
        expected = np.histogram(
            sample(array), bins=np.append(statistics.histogram.centers, np.inf) - 0.5 * statistics.histogram.width
        )[0]
        assert np.abs(expected - statistics.histogram.counts).sum() <= 0.002 * sample(array).size + 2


def test_without_histograms_the_ranges_are_the_same(model, x):
    whole = calibrate(model, images_of(x), tensors=["x", "wide", "y"])
    bare = calibrate(model, images_of(x), tensors=["x", "wide", "y"], histograms=False)
    for name, statistics in bare.tensors.items():
        assert (statistics.low, statistics.high) == (whole.tensors[name].low, whole.tensors[name].high)
        assert not statistics.histogram.counts.any()
        assert whole.tensors[name].histogram.counts.any()


def test_a_run_takes_as_many_images_as_its_tensors_allow(model):
    assert batch_size_for(model, ["y"]) == 8
    several = batch_size_for(model, ["wide"] * 100)
    assert 1 < several < 8
    assert several * 100 * 16 * SIDE * SIDE <= 20_000_000 < (several + 1) * 100 * 16 * SIDE * SIDE
    assert batch_size_for(model, ["wide"] * 10_000) == 1


@pytest.mark.parametrize("samples", [True, False])
def test_tensors_are_looked_at_as_soon_as_they_are_there(model, x, tmp_path, samples):
    """In the order in which the runtime really works: else all of them are kept in memory until the end."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    content = with_summaries(model, ["y"], {"wide": 37, "c": 37}, samples=samples).content
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    # In the runtime's own layout nodes are called after it.
    order = [event["name"].removesuffix("_kernel_time").removesuffix("_nchwc") for event in events]
    assert order.index("highest of c") < order.index("lowest of c") < order.index("highest of wide")
    assert order.index("lowest of wide") < order.index("pool")


@pytest.mark.parametrize("after", ["Sqrt", "Exp"])
def test_what_is_not_finite_is_refused_by_name(x, after):
    """Roots of negative values are NaN, exponentials of a hundred times these infinite."""
    model = lowbit.load(wide_network(after))
    with pytest.raises(ModelError, match="tensor 'wide': the float model computes NaN or infinite"):
        calibrate(model, images_of(100 * x), tensors=["wide"])


@pytest.mark.parametrize("after", ["Sqrt", "Exp"])
def test_without_histograms_what_is_not_finite_shows_in_the_answers(x, after):
    model = lowbit.load(wide_network(after))
    with pytest.raises(ModelError, match="the float model computes NaN or infinite"):
        calibrate(model, images_of(100 * x), tensors=["wide"], histograms=False)


@pytest.mark.parametrize("histograms", [True, False])
def test_behind_a_relu_nothing_below_zero_is_looked_for(x, histograms):
    model = lowbit.load(wide_network("Relu"))
    assert b"lowest of wide" not in with_summaries(model, [], {"wide": 37}, samples=histograms).content
    assert b"lowest of c" in with_summaries(model, [], {"c": 37}, samples=histograms).content
    statistics = calibrate(model, images_of(x), tensors=["wide"], histograms=histograms).tensors["wide"]
    wide = open_session(networks.with_outputs(model, ["wide"])).run({"x": x})["wide"]
    assert (statistics.low, statistics.high) == (0.0, pytest.approx(wide.max(), rel=1e-5))


def test_summaries_of_nothing_there(model):
    with pytest.raises(ModelError, match="no tensor named 'nowhere'"):
        with_summaries(model, ["nowhere"], {})


@pytest.mark.parametrize(("recipe", "ranges"), [("a16w8", None), ("int8", "minmax")])
def test_a_network_may_answer_with_integers_beside_floats(recipe, ranges):
    """A text encoder that hands its token numbers on: they are no floats to look for NaN in."""
    table = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    weight = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    nodes = [
        make_node("Identity", "ids", "same"),
        make_node("Gather", "table ids", "words"),
        make_node("MatMul", "words w", "y"),
    ]
    kinds = dict.fromkeys(("ids", "same"), TensorProto.INT64)
    shapes = {"same": ["n", 6], "y": ["n", 6, 8]}
    model = lowbit.load(make(nodes, {"ids": ["n", 6]}, shapes, {"table": table, "w": weight}, types=kinds))
    ids = np.random.default_rng(2).integers(0, 20, (30, 6))
    asked = recipe if ranges is None else replace(lowbit.parse_recipe(recipe), ranges=ranges)
    quantized = lowbit.quantize(model, asked, calibration={"ids": ids}, steps=[])
    found = open_session(quantized.to_bytes()).run({"ids": ids})
    np.testing.assert_array_equal(found["same"], ids)
    wanted = table[ids] @ weight
    assert np.square(found["y"] - wanted).mean() < 1e-3 * wanted.var()

"""The judge: which images it has, what it makes of every kind of output, and when it calls a file closer."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

import lowbit
import networks
from graphs import make, make_node
from lowbit.calibration.answers import per_image
from lowbit.engines import open_session
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.ops import layers
from lowbit.quantization.passes.sensitivity import sensitivities
from lowbit.quantization.passes.steps import STEPS, Step
from lowbit.quantization.passes.validation import (
    FEWEST_IMAGES,
    FEWEST_JUDGING,
    MOST_JUDGING,
    NOT_JUDGED,
    RELATIVE_ERROR,
    Distances,
    Validation,
    fitting_and_judging,
)
from lowbit.quantization.planning.steps import BIAS
from lowbit.quantization.solving.effort import EFFORTS

POSITIVE = st.floats(1e-9, 1e3)
PAIRS = st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=20)


def images_of(count, *, seed=1):
    return lowbit.open_images(list(networks.inputs(count, seed=seed)), None, values="model")


def distances(*values):
    return Distances(np.array(values, np.float64))


@given(PAIRS, st.sampled_from([1.0, 0.5]))
def test_of_two_files_at_most_one_is_closer(pairs, tolerance):
    a, b = (distances(*values) for values in zip(*pairs, strict=True))
    assert not (a.closer_than(b, tolerance=tolerance) and b.closer_than(a, tolerance=tolerance))
    assert not a.closer_than(a, tolerance=tolerance)
    if a.closer_than(b, tolerance=tolerance):
        assert a.mean < b.mean
        assert a.closer_than(b, tolerance=1.5)


@given(PAIRS, st.sampled_from([0.25, 8.0]))  # powers of two, which scale exactly
def test_units_do_not_matter_to_which_is_closer(pairs, unit):
    a, b = (distances(*values) for values in zip(*pairs, strict=True))
    scaled = [Distances(each.values * unit) for each in (a, b)]
    if min(a.values.min(), b.values.min()) > 1e-8:
        assert scaled[0].closer_than(scaled[1]) == a.closer_than(b)


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 1.5])
def test_an_answer_that_is_no_number_is_never_closer(tolerance):
    finite, broken = distances(1e9, 1e9), distances(0.0, math.inf)
    assert finite.closer_than(broken, tolerance=tolerance)
    assert not broken.closer_than(finite, tolerance=tolerance)
    assert not broken.closer_than(broken, tolerance=tolerance)


def test_chance_decides_nothing_and_one_image_neither():
    generator = np.random.default_rng(0)
    before = generator.uniform(1, 2, 64)
    noise = generator.permutation(np.repeat([-0.2, 0.2], 32))
    assert not distances(*(before + noise - 0.01)).closer_than(distances(*before))
    assert distances(*(before + noise - 0.1)).closer_than(distances(*before))
    # The mean is smaller for the sake of one image, and all others are farther.
    one = before * 1.1
    one[0], before[0] = 0.1, 50.0
    assert one.mean() < before.mean()
    assert not distances(*one).closer_than(distances(*before))
    assert not distances(*before).closer_than(distances(*one))


def test_a_tolerance_gives_the_benefit_of_the_doubt():
    before = distances(1.0, 2.0, 3.0)
    slightly, much = (Distances(before.values * factor) for factor in (1.4, 1.6))
    assert slightly.closer_than(before, tolerance=1.5)
    assert not slightly.closer_than(before)
    assert not much.closer_than(before, tolerance=1.5)
    half = Distances(before.values * 0.6)
    assert half.closer_than(before)
    assert not half.closer_than(before, tolerance=0.5), "it has to be twice as close"


@pytest.mark.parametrize("count", [FEWEST_IMAGES, 64, 99, 100, 250, 1000])
def test_images_that_judge_are_set_apart(count):
    model = lowbit.load(networks.residual_network())
    x = networks.inputs(8)
    x = np.concatenate([x] * (count // 8 + 1))[:count] + np.arange(count, dtype=np.float32)[:, None, None, None]
    images = lowbit.open_images(list(x), None, values="model")
    fitting, judging = fitting_and_judging(model, images)
    fitted, judged = set(fitting.digests), set(judging.digests)
    assert fitted.isdisjoint(judged)
    assert fitted | judged == set(images.digests)
    assert fitting.count + judging.count == count
    assert min(FEWEST_JUDGING, count // 5) <= judging.count <= MOST_JUDGING
    assert fitting.count >= judging.count


@pytest.mark.parametrize("count", [1, FEWEST_IMAGES - 1])
def test_of_few_images_all_fit_and_all_judge(count):
    images = images_of(count)
    assert fitting_and_judging(lowbit.load(networks.residual_network()), images) == (images, images)


@pytest.mark.parametrize(("batch", "count", "judging"), [(8, 100, 24), (8, 60, 24), (32, 100, 32), (64, 120, 120)])
def test_a_fixed_batch_is_filled_by_both(batch, count, judging):
    proto = networks.residual_network()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = batch
    model, images = lowbit.load(proto), images_of(count)
    parts = fitting_and_judging(model, images)
    assert [part.count for part in parts] == ([count] * 2 if judging == count else [count - judging, judging])
    assert all(part.count >= batch for part in parts)


def network(form):
    """A convolution, a depthwise and a pointwise one, with outputs of this form."""
    generator = np.random.default_rng(0)
    weights = {
        "w0": generator.normal(scale=0.4, size=(12, 3, 3, 3)),
        "b0": generator.normal(scale=0.3, size=12),
        "w1": generator.normal(scale=0.4, size=(24, 12, 1, 1)),
        "b1": generator.normal(scale=0.3, size=24),
        "w2": generator.normal(scale=0.3, size=(6, 24, 1, 1)) * np.geomspace(0.1, 10, 6).reshape(-1, 1, 1, 1),
        "b2": generator.normal(scale=0.1, size=6),
        "w3": generator.normal(scale=0.3, size=(24, 5)),
    }
    nodes = [
        make_node("Conv", "x w0 b0", "c0", pads=[1] * 4, strides=[2] * 2),
        make_node("Relu", "c0", "r0"),
        make_node("Conv", "r0 w1 b1", "c1"),
        make_node("Relu", "c1", "r1"),
    ]
    maps = [make_node("Conv", "r1 w2 b2", "maps")]
    pooled = [make_node("GlobalAveragePool", "r1", "g"), make_node("Flatten", "g", "f")]
    outputs, more = {
        "maps": (["maps"], maps),
        "classes": (["y"], [*pooled, make_node("MatMul", "f w3", "y")]),
        "two": (["y", "maps"], [*maps, *pooled, make_node("MatMul", "f w3", "y")]),
        "two, with a number per batch": (
            ["top", "y", "maps"],
            [*maps, *pooled, make_node("MatMul", "f w3", "y"), make_node("ReduceMax", "maps", "top", keepdims=0)],
        ),
        "rows": (
            ["rows"],
            [
                make_node("Reshape", "r1 flat", "s"),
                make_node("Transpose", "s", "t", perm=[0, 2, 1]),
                make_node("MatMul", "t w3", "rows"),
            ],
        ),
        "a number per image": (
            ["number"],
            [
                make_node("Conv", "r1 w2 b2", "maps"),
                make_node("ReduceMean", "maps", "number", axes=[1, 2, 3], keepdims=0),
            ],
        ),
    }[form]
    read = {name for node in [*nodes, *more] for name in node.input}
    weights = {name: value for name, value in weights.items() if name in read}
    if "flat" in read:
        weights["flat"] = np.array([0, 24, -1], np.int64)
    return lowbit.load(make([*nodes, *more], {"x": ["n", 3, 16, 16]}, outputs, weights))


FORMS = ("maps", "two", "two, with a number per batch", "rows", "a number per image")


def mean_error(model, content, x):
    """Squared error relative to the variance of each output, in the mean over outputs."""
    exact, given = (open_session(each, threads=1).run({"x": x}) for each in (model.to_bytes(), content))
    return np.mean([np.square(given[name] - y).mean() / y.var() for name, y in exact.items() if y.ndim])


@pytest.mark.parametrize("form", FORMS)
def test_a_step_that_helps_is_kept_whatever_the_outputs(form):
    model, x = network(form), networks.inputs(64, seed=9)
    plain = lowbit.quantize(model, "linear3")
    rounded = lowbit.quantize(model, "linear3", calibration=images_of(96), steps=["rounding"])
    (step,) = rounded.steps
    assert step.measure == RELATIVE_ERROR
    assert step.kept
    assert step.after < step.before
    assert 0 < step.fitted < step.before
    assert mean_error(model, rounded.to_bytes(), x) < 0.7 * mean_error(model, plain.to_bytes(), x)


@pytest.mark.parametrize("harmed", ["b0", "last"])
@pytest.mark.parametrize("form", FORMS)
def test_a_step_that_harms_is_dropped_whatever_the_outputs(form, harmed, monkeypatch):
    """Also one that harms the last output alone."""
    model = network(form)
    names = [name for name in model.weights if name.startswith("b")]
    name = "b0" if harmed == "b0" else names[-1]

    def harm(before, images, threads, progress):
        values = {name: model.weights[name] + 0.5}
        return replace(before, graph=replace(before.graph, float_values=values))

    monkeypatch.setitem(STEPS, BIAS, Step(harm, lambda plan: 1.0))
    (step,) = lowbit.quantize(model, "linear8", calibration=images_of(64), steps=["bias"]).steps
    assert not step.kept
    assert step.after > 2 * step.before


def selecting(form):
    """A network whose only output has no row for each image: what a detector selects, or images against each other."""
    generator = np.random.default_rng(5)
    weights = {"w0": generator.normal(size=(8, 3, 3, 3)) / 4, "w1": generator.normal(size=(6, 8)) / 3}
    nodes = [
        make_node("Conv", "x w0", "c", strides=[2, 2], name="first"),
        make_node("Relu", "c", "r"),
        make_node("ReduceMean", "r", "mean", axes=[2, 3], keepdims=0),
        make_node("Gemm", "mean w1", "e", transB=1, name="second"),
    ]
    if form == "images against each other":
        nodes += [make_node("Transpose", "e", "t", perm=[1, 0]), make_node("MatMul", "e t", "y")]
    else:
        weights["zero"] = np.zeros(1)
        nodes.append(make_node("ReduceMean", "x", "brightness", axes=[1, 2, 3], keepdims=0))
        nodes.append(make_node("Greater", "brightness zero", "bright"))
        nodes.append(make_node("Compress", "e bright", "y", axis=0))
    return lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], weights))


@pytest.mark.parametrize("recipe", ["int8", "linear3"])
def test_a_network_that_compares_images_is_judged_on_runs_of_one(recipe):
    quantized = lowbit.quantize(selecting("images against each other"), recipe, calibration=images_of(63))
    assert {step.measure for step in quantized.steps} == {RELATIVE_ERROR}
    assert recipe == "int8" or any(step.kept and step.after < step.before for step in quantized.steps)


@pytest.mark.parametrize("recipe", ["int8", "linear3"])
def test_where_no_output_has_a_row_for_each_image_steps_that_mostly_help_are_kept(recipe):
    quantized = lowbit.quantize(selecting("a selection"), recipe, calibration=images_of(63))
    kept = {step.name: step.kept for step in quantized.steps}
    assert {step.measure for step in quantized.steps} == {NOT_JUDGED}
    assert kept.pop("rounding and bias correction")
    assert kept.pop("bias correction", True)
    assert not any(kept.values())
    assert open_session(quantized.to_bytes()).run({"x": networks.inputs(8)})["y"].size


def test_rows_of_all_images_are_dealt_out_to_them():
    rows = np.arange(24.0).reshape(12, 2)
    found = per_image({"rows": [rows[:8], rows[8:]], "uneven": [rows[:5], rows[:1]], "sum": [rows[0, 0]] * 2}, [4, 2])
    assert list(found) == ["rows"]
    np.testing.assert_array_equal(found["rows"], rows.reshape(6, 2, 2))


def test_classes_are_judged_by_their_divergence():
    quantized = lowbit.quantize(network("classes"), "linear3", calibration=images_of(64), steps=["rounding"])
    assert quantized.steps[0].measure == "KL"


def test_outputs_count_alike_whatever_their_units():
    """Scores that are wrong by as much as they vary weigh as much as boxes that are a thousand times as large."""
    model = network("two")
    scaled = model.with_weights({name: 1000 * model.weights[name] for name in ("w2", "b2")})
    lost = []
    for each in (model, scaled):
        validation = Validation(each, images_of(32))
        changed = QuantizedGraph(each, weights={}, float_values={"w3": 1.1 * each.weights["w3"]})
        lost.append(validation.distances(changed))
        assert validation.distances(QuantizedGraph(each, weights={})).mean == pytest.approx(0, abs=1e-10)
    np.testing.assert_allclose(lost[0].values, lost[1].values, rtol=1e-3)
    assert lost[0].mean > 1e-3


@pytest.mark.parametrize("form", ["classes", *FORMS])
def test_answers_that_are_no_numbers_are_infinitely_far(form):
    model = network(form)
    broken = QuantizedGraph(model, weights={}, float_values={"b1": np.full(24, np.nan, np.float32)})
    found = Validation(model, images_of(8)).distances(broken)
    assert np.isinf(found.values).all()
    assert len(found.values) == 8


def sharp(*, probabilities):
    """A classifier that is sure of every image, as trained ones are; and the same one with a Softmax behind."""
    proto = networks.residual_network()
    for weight in proto.graph.initializer:
        if weight.name.startswith("fc."):
            weight.CopyFrom(numpy_helper.from_array(10 * numpy_helper.to_array(weight), weight.name))
    if probabilities:
        proto.graph.node.append(make_node("Softmax", "logits", "p", axis=-1))
        proto.graph.output[0].name = "p"
    return lowbit.load(proto)


@pytest.mark.parametrize("recipe", ["int8", "int4", "linear4"])
def test_a_softmax_behind_the_logits_changes_no_verdict(recipe):
    logits, probabilities = (
        lowbit.quantize(sharp(probabilities=each), recipe, calibration=networks.inputs(64)) for each in (False, True)
    )
    assert len(logits.steps) > 1
    for one, other in zip(logits.steps, probabilities.steps, strict=True):
        assert (one.name, one.kept, one.measure) == (other.name, other.kept, other.measure)
        np.testing.assert_allclose([other.before, other.after], [one.before, one.after], rtol=2e-3)


def test_a_softmax_behind_the_logits_changes_no_sensitivity():
    logits, probabilities = (
        sensitivities(each, images_of(32), [layer.node for layer in layers(each)], EFFORTS["fast"], threads=1)
        for each in (sharp(probabilities=False), sharp(probabilities=True))
    )
    for node, one in logits.items():
        assert probabilities[node].cost == pytest.approx(one.cost, rel=1e-2)

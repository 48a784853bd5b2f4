"""Whole models: every recipe of the table on every network here, judged on what the written file answers."""

import functools

import numpy as np
import pytest

import lowbit
import networks
from graphs import change_weights, make, make_node, relative_error, run
from lowbit.calibration.divergence import mean_kl
from lowbit.quantization.passes.steps import BIAS_CORRECTION_TOLERANCE, ROUNDING_TOLERANCE
from lowbit.quantization.passes.validation import fitting_and_judging
from lowbit.quantization.planning.steps import BIAS, ROUNDING
from lowbit.quantization.quantize import follow
from lowbit.quantization.solving.effort import EFFORTS

RECIPES = ("int8", "int4", "linear8", "linear4", "linear3", "linear2", "cluster4", "cluster3", "cluster2", "cluster1")


@pytest.fixture(scope="module", params=[1.0, 10.0], ids=["even", "ill-scaled"])
def model(request):
    return lowbit.load(networks.residual_network(depthwise_scale=request.param))


@pytest.fixture(scope="module")
def images():
    return lowbit.open_images(list(networks.inputs(64)), None)


@pytest.fixture(scope="module")
def quantized(model, images):
    """What quantizes the model with the images; each combination once, since the result is always the same."""
    return functools.cache(lambda recipe, effort: lowbit.quantize(model, recipe, calibration=images, effort=effort))


def kl(model, content):
    unseen = lowbit.open_images(list(networks.inputs(64, seed=77)), None)
    return mean_kl(*(networks.class_scores(each, model, unseen) for each in (model.to_bytes(), content)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_looking_at_images_helps_on_images_never_seen(model, quantized, recipe):
    found = kl(model, quantized(recipe, "fast").to_bytes())
    assert np.isfinite(found)
    if recipe.startswith(("linear", "cluster")):
        plain = lowbit.quantize(model, recipe)
        assert found <= 1.1 * kl(model, plain.to_bytes()) + 1e-5


@pytest.mark.parametrize("recipe", ["linear4", "cluster3"])
def test_steps_are_judged_on_what_the_file_answers(model, images, quantized, recipe):
    quantized = quantized(recipe, "fast")
    fitting, judging = fitting_and_judging(model, images)
    step = quantized.steps[-1]
    assert step.kept
    assert step.measure == "KL"
    for part, distance in ((judging, step.after), (fitting, step.fitted)):
        reference, found = (networks.class_scores(each.to_bytes(), model, part) for each in (model, quantized))
        temperature = max(1.0, reference.std(axis=1).mean())
        assert distance == pytest.approx(mean_kl(reference / temperature, found / temperature), 1e-3)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("recipe", ["int8", "linear3", "cluster3"])
def test_every_effort_gives_a_valid_model_and_keeps_only_what_helps(model, quantized, effort, recipe):
    quantized = quantized(recipe, effort)
    assert quantized.steps
    assert bool(quantized.graph.activations) == bool(quantized.graph.integer) == (recipe == "int8")
    assert tuple(dict.fromkeys(step.name for step in quantized.steps)) == quantized.plan.steps
    # Bias correction and rounding have the benefit of the doubt.
    tolerance = {BIAS: BIAS_CORRECTION_TOLERANCE, ROUNDING: ROUNDING_TOLERANCE}
    for step in quantized.steps:
        assert not step.kept or step.after < step.before * tolerance.get(step.name, 1.0)
    assert kl(model, quantized.to_bytes()) < 0.5


@pytest.mark.parametrize(
    ("recipe", "per", "plain", "most"),
    [
        ("int8", "channel", 0.1, 0.01),
        ("int8", "tensor", 1.0, 0.1),
        ("linear4", "channel", 1.0, 0.1),
        ("cluster4", "tensor", 0.4, 0.1),
    ],
)
def test_channels_a_hundredfold_apart_come_close_to_float(images, recipe, per, plain, most):
    model = lowbit.load(networks.depthwise_network(seed=3))
    found = lowbit.quantize(model, lowbit.parse_recipe(recipe, per=per), calibration=images)
    step = next(step for step in found.steps if step.name == "equalization")
    assert step.before > plain
    assert step.kept
    assert kl(model, found.to_bytes()) < most


@pytest.mark.parametrize(
    ("recipe", "per", "plain", "most"),
    [
        ("int8", "channel", 0.02, 0.01),
        ("int8", "tensor", 1.0, 0.1),
        ("linear4", "channel", 1.0, 0.3),
        ("cluster4", "tensor", 0.3, 0.5),
    ],
)
def test_relu6_that_is_active_in_some_of_them_leaves_less_to_gain(images, recipe, per, plain, most):
    model = lowbit.load(networks.depthwise_network(seed=1, clip=6.0))
    found = lowbit.quantize(model, lowbit.parse_recipe(recipe, per=per), calibration=images)
    assert found.steps[0].before > plain
    assert kl(model, found.to_bytes()) < most


def test_the_second_branch_of_a_sum_makes_up_for_the_first():
    """A branch of small weights has finer steps: aimed at what the coarse one lacks, it takes most of that away."""
    generator = np.random.default_rng(0)
    weights = {"coarse": generator.normal(size=(8, 3, 3, 3)), "fine": 0.05 * generator.normal(size=(8, 3, 3, 3))}
    nodes = [make_node("Conv", "x coarse", "a"), make_node("Conv", "x fine", "b"), make_node("Add", "a b", "y")]
    model = lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], weights))
    seen = lowbit.open_images(list(networks.inputs(32)), None, values="model")
    quantized = lowbit.quantize(model, "linear3", calibration=seen, effort="fast", steps=["rounding"])
    assert quantized.steps[0].kept
    x = networks.inputs(32, seed=7)
    exact = run(model.to_bytes(), x)
    alone = model.with_weights({"coarse": quantized.graph.weights["coarse"].decode()})
    error = relative_error(run(quantized.to_bytes(), x), exact)
    assert error < 0.6 * relative_error(run(alone.to_bytes(), x), exact)


def test_bias_correction_that_clearly_harms_is_dropped():
    """Two images a thousand times brighter decide what the corrected means are, and the others pay for it."""
    x = networks.inputs(32)
    x[-2:] *= 1000
    bright = lowbit.open_images(list(x), None, values="model")
    model = lowbit.load(networks.residual_network())
    quantized = lowbit.quantize(model, "linear4", calibration=bright, steps=["bias"])
    (step,) = quantized.steps
    assert step.after > 2 * step.before
    assert not step.kept
    trained = model.with_weights({name: codes.decode() for name, codes in quantized.graph.weights.items()})
    np.testing.assert_allclose(run(quantized.to_bytes(), x), run(trained.to_bytes(), x), rtol=1e-5, atol=1e-5)


def test_same_seed_same_bytes(model, images, quantized):
    first = quantized("linear3", "fast").to_bytes()
    assert first == lowbit.quantize(model, "linear3", calibration=images, effort="fast").to_bytes()


def test_a_dead_channel_and_a_constant_input_are_no_obstacle():
    dead = {"wide.weight": 0.0, "wide.bias": 0.0}
    model = lowbit.load(change_weights(networks.residual_network(), slice(5), dead))
    black = lowbit.open_images([np.zeros((3, 16, 16), np.float32)] * 4, None, values="model")
    for calibration, recipes in ((networks.inputs(8), ("linear3", "int8")), (black, ("cluster2", "int8"))):
        for recipe in recipes:
            quantized = lowbit.quantize(model, recipe, calibration=calibration, effort="balanced")
            assert "wide.weight" in quantized.graph.weights
            for codes in quantized.graph.weights.values():
                assert np.isfinite(codes.decode()).all()


def test_unknown_effort_is_refused(model):
    with pytest.raises(lowbit.LowbitError, match="balanced"):
        lowbit.quantize(model, "linear4", effort="heroic")


def test_images_that_make_no_difference_are_said(model, images):
    quantized = lowbit.quantize(model, "linear9", calibration=images)
    assert quantized.to_bytes() == lowbit.quantize(model, "linear9").to_bytes()
    (note,) = quantized.notes
    assert note.startswith("The calibration images were not used: linear9 takes no steps at effort balanced.")
    assert lowbit.quantize(model, "linear9").notes == ()
    (note,) = lowbit.quantize(model, "float", calibration=images).notes
    assert note == "The calibration images were not used: nothing is quantized."
    assert lowbit.quantize(model, "float16", calibration=images, steps=()).notes == ()
    (note,) = lowbit.quantize(model, "linear4", calibration=images, steps=()).notes
    assert note == "The calibration images were not used: there is nothing to learn from them without steps."
    assert lowbit.quantize(model, "linear9", calibration=images, steps=["bias"]).notes == ()
    assert lowbit.quantize(model, "linear8", calibration=images, effort="fast").notes == ()


@pytest.mark.parametrize("recipe", ["int4", "linear3"])
def test_the_number_of_threads_changes_nothing(images, recipe, monkeypatch):
    model = lowbit.load(networks.residual_network())
    decision = lowbit.plan(model, recipe, effort="fast", steps=["rounding", "bias"])
    one = follow(model, decision, images, threads=1).to_bytes()
    for module in ("layerwise", "bias_correction"):
        monkeypatch.setattr(f"lowbit.quantization.passes.{module}.cores", lambda: 3)
    assert follow(model, decision, images, threads=2).to_bytes() == one
    assert lowbit.quantize(model, decision, calibration=images).to_bytes() == one


@pytest.mark.parametrize("recipe", ["int8", "int4", "linear4", "dynamic8"])
@pytest.mark.parametrize("shape", [(6,), (1, 6), (1, 1, 6)])
def test_the_bias_of_a_product_may_have_axes_of_one(recipe, shape):
    generator = np.random.default_rng(0)
    arrays = {
        "w": generator.normal(size=(16, 6)), "b": generator.normal(size=shape), "v": generator.normal(size=(6, 3))
    }  # fmt: skip
    nodes = [
        make_node("MatMul", "x w", "product"),
        make_node("Add", "product b", "sum"),
        make_node("Relu", "sum", "positive"),
        make_node("MatMul", "positive v", "y"),
    ]
    model = lowbit.load(make(nodes, {"x": ["n", 4, 16]}, {"y": ["n", 4, 3]}, arrays))
    x = generator.normal(size=(96, 4, 16)).astype(np.float32)
    quantized = lowbit.quantize(model, recipe, calibration=x, steps=["rounding"])
    wanted, found = (run(each.to_bytes(), x) for each in (model, quantized))
    assert relative_error(found, wanted) < (0.1 if "4" in recipe else 0.03)

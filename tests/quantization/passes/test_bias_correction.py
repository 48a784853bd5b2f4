"""Bias correction by itself: means come out as in the float network, at the cost of a few runs, by its own switch."""

import dataclasses

import numpy as np
import pytest

import lowbit
import networks
from graphs import run
from lowbit.data.images import open_images
from lowbit.engines import open_session
from lowbit.errors import DataError, SchemeError
from lowbit.formats.onnx.write import to_onnx
from lowbit.graph.ops import layers
from lowbit.graph.preprocessing import Preprocessing
from lowbit.graph.subgraph import ActivationGrid, Subgraphs
from lowbit.quantization.passes import bias_correction as bias
from lowbit.quantization.passes.bias_correction import corrected_biases
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.steps import BIAS, EXACT_INPUT


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


@pytest.fixture(scope="module")
def images():
    return open_images(list(networks.inputs(24)), None, values="model")


def new_biases(*given, grids, **options):
    return dict(corrected_biases(*given, grids=grids, **options))


def coarse(model):
    """Weights of half as many digits as they need: rounded down, so that all means move."""
    return {layer.weight: np.floor(model.weights[layer.weight] * 8).astype(np.float32) / 8 for layer in layers(model)}


def outputs(model, x, weights, rounded):
    """Every layer's output with other weights, by the whole network at once."""
    names = [layer.output for layer in layers(model)]
    grids = {name: grid for name, grid in rounded.items() if name not in names}
    content, inputs = Subgraphs(model).extract([model.input.name], names, weights=weights, rounded=grids)
    return open_session(content).run({inputs[0]: x})


@pytest.mark.parametrize(
    "rounded", [{}, {"wide.clip": ActivationGrid(0.1, 195), "deep.clip": ActivationGrid(0.2, 225)}]
)
def test_means_are_those_of_the_float_network(model, images, rounded):
    weights = coarse(model)
    x = networks.inputs(24)
    found = new_biases(model, images, weights, grids=rounded)
    assert set(found) == {layer.bias for layer in layers(model)}
    wanted = outputs(model, x, {}, {})
    before, after = outputs(model, x, weights, rounded), outputs(model, x, weights | found, rounded)
    for layer in layers(model):
        name = layer.output
        axes = (0, *range(2, wanted[name].ndim))
        mean = wanted[name].mean(axis=axes)
        assert np.abs(before[name].mean(axis=axes) - mean).max() > 0.01, name
        np.testing.assert_allclose(after[name].mean(axis=axes), mean, atol=2e-4, err_msg=name)


def test_memory_and_threads_change_how_many_images_not_what_is_done(model, images, monkeypatch):
    weights = coarse(model)
    one, two = (new_biases(model, images, weights, grids={}, threads=threads) for threads in (1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    monkeypatch.setattr(bias, "MEMORY", 1)
    few = new_biases(model, images, weights, grids={})
    assert any(np.abs(few[name] - one[name]).max() > 1e-4 for name in one)


def test_layers_that_are_passed_and_shared_biases_stay(model, images):
    found = new_biases(model, images, coarse(model), grids={}, passed=frozenset(("stem", "fc")))
    assert {"stem.bias", "fc.bias"}.isdisjoint(found)
    assert len(found) == len(layers(model)) - 2
    proto = networks.residual_network()
    next(node for node in proto.graph.node if node.name == "back").input[2] = "narrow.bias"
    shared = lowbit.load(proto)
    assert "narrow.bias" not in new_biases(shared, images, coarse(shared), grids={})


def test_too_few_images_for_a_fixed_batch_are_refused(images):
    proto = networks.residual_network()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 64
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 64
    model = lowbit.load(proto)
    with pytest.raises(DataError, match="at least 64"):
        new_biases(model, images, coarse(model), grids={})


def test_steps_are_chosen_by_name(model, images):
    assert plan(model, "int8", effort="fast", steps=["bias"]).steps == (BIAS,)
    assert plan(model, "linear4", steps=()).steps == ()
    assert BIAS in plan(model, "int8", effort="fast").steps
    assert EXACT_INPUT not in plan(model, "int8", steps=["bias", "exact-input"]).steps  # takes floats only
    quantized = lowbit.quantize(model, "linear4", calibration=images, steps=["bias"])
    assert [step.name for step in quantized.steps] == [BIAS]
    assert quantized.steps[0].kept
    assert quantized.steps[0].after < 0.5 * quantized.steps[0].before
    # Its codes are the plain ones: nothing was searched for.
    plain = lowbit.quantize(model, "linear4", calibration=images, steps=[])
    for name, codes in plain.graph.weights.items():
        np.testing.assert_array_equal(codes.decode(), quantized.graph.weights[name].decode())


def test_rounding_follows_bias_correction(model, images):
    found = lowbit.quantize(model, "int4", calibration=images, effort="fast", steps=["rounding", "bias"])
    assert [step.name for step in found.steps] == [BIAS, "rounding and bias correction"], "rounding corrects them too"
    first, second = found.steps
    assert second.before == (first.after if first.kept else first.before)


def test_steps_that_make_no_sense_are_refused(model):
    with pytest.raises(
        SchemeError, match=r"unknown step 'luck'.*exact-input, equalization, ranges, bias, rounding, or none"
    ):
        plan(model, "int8", steps=["luck"])
    for recipe, step in (("linear4", "exact-input"), ("linear4", "ranges"), ("float", "bias")):
        with pytest.raises(SchemeError, match=f"recipe '{recipe}' does not use step '{step}'"):
            plan(model, recipe, steps=[step])
    with pytest.raises(DataError, match="steps bias look at what the network computes"):
        lowbit.quantize(model, "linear4", steps=["bias"])


def test_layers_behind_one_that_reads_bytes_make_up_for_its_rounding():
    """A stem of one scale whose channels are far apart, and black as the mean color, of which nothing is corrected."""
    side = networks.SIDE
    how = Preprocessing(side, side, mean=(0.0,) * 3, std=(1.0,) * 3)
    trained = lowbit.load(networks.residual_network(first=16))
    spread = trained.weights["stem.weight"] * np.geomspace(1, 60, 16, dtype=np.float32).reshape(-1, 1, 1, 1)
    model = dataclasses.replace(trained.with_weights({"stem.weight": spread}), preprocessing=how)
    images = np.random.default_rng(4).integers(0, 256, (24, 3, side, side)).astype(np.float32) / 255
    recipe = lowbit.parse_recipe("int8", per="tensor")

    def shift(steps):
        found = lowbit.quantize(model, recipe, calibration=images, steps=steps)
        answers = run(to_onnx(found.graph), images)
        return np.abs(answers.mean(axis=0) - wanted.mean(axis=0)).max() / wanted.std()

    wanted = run(model.to_bytes(), images)
    assert shift(["exact-input", "bias"]) < 0.2 * shift(["exact-input"])

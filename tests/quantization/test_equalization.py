import numpy as np
import pytest

import lowbit
import networks
from lowbit.calibration.channels import channel_ranges
from lowbit.engines import open_session
from lowbit.quantization.equalization import equalizable, equalize


@pytest.fixture(scope="module")
def images():
    return lowbit.open_images(list(networks.inputs(24)), None)


def logits(model, x):
    return open_session(model.to_bytes(), threads=1).run({"x": x})["logits"]


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_float_outputs_do_not_change(images, strength):
    model = lowbit.load(networks.residual_network(depthwise_scale=10.0))
    ranges = channel_ranges(model, images, equalizable(model))
    equalized = equalize(model, ranges, strength=strength)
    assert equalized.changed[0] > 0
    x = networks.inputs(24)
    before = logits(model, x)
    np.testing.assert_allclose(logits(equalized.model, x), before, atol=1e-5 * np.abs(before).max())


def test_channels_fill_the_range_more_evenly(images):
    model = lowbit.load(networks.residual_network(depthwise_scale=10.0))
    names = equalizable(model)
    ranges = channel_ranges(model, images, names)
    equalized = equalize(model, ranges)
    after = channel_ranges(equalized.model, images, names)

    def evenness(found):
        return np.mean([np.mean(np.log(np.maximum(r.usual, 1e-9) / r.usual.max())) for r in found.values()])

    assert evenness(after) > evenness(ranges)


def test_a_channel_that_reaches_the_bound_of_relu6_is_left_alone(images):
    model = lowbit.load(networks.residual_network(depthwise_scale=10.0))
    names = equalizable(model)
    ranges = channel_ranges(model, images, names)
    factors = equalize(model, ranges).factors
    for tensor in ("stem.clip", "wide.clip", "deep.clip", "last.clip"):
        if tensor in factors:
            reached = ranges[tensor].highest >= 6.0
            assert np.all(factors[tensor][reached] == 1.0)


def test_inputs_and_outputs_keep_their_scale(images):
    model = lowbit.load(networks.residual_network())
    factors = equalize(model, channel_ranges(model, images, equalizable(model))).factors
    assert "x" not in factors
    assert "logits" not in factors


def test_a_sum_ties_its_branches(images):
    model = lowbit.load(networks.residual_network())
    factors = equalize(model, channel_ranges(model, images, equalizable(model))).factors
    np.testing.assert_array_equal(factors["sum"], factors["narrow"])
    np.testing.assert_array_equal(factors["sum"], factors["back"])

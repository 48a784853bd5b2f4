"""Rate-aware rounding: cheaper than plain rounding for what it does, and its bits are those of the real coder."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
import networks
from graphs import make, make_node
from lowbit.graph.ops import layers
from lowbit.packing.contexts import Layout
from lowbit.packing.entropy import Encoder, choose_coding, encode
from lowbit.quantization.solving import rate_distortion as rate
from lowbit.quantization.solving.problem import damped, inverse_factor
from lowbit.quantization.solving.rate_distortion import high_rate_scale, row_scales, solve_rate

LARGEST = 127  # of codes of 8 bits


@pytest.fixture(scope="module")
def found():
    return {layer.node: layer for layer in layers(lowbit.load(networks.residual_network(first=24)))}


def problem(layer, seed=0):
    """A target and inputs that depend on each other."""
    generator = np.random.default_rng(seed)
    shape = layer.to_matrix(np.zeros(layer.weight_shape)).shape
    mixed = generator.normal(size=(shape[0], shape[2], shape[2])) / np.sqrt(shape[2]) + np.eye(shape[2])
    second = damped(mixed @ mixed.transpose(0, 2, 1), 1e-2)
    return generator.standard_t(5, size=shape) * 0.1, second


def cost(target, second, codes, step, bits, multiplier):
    error = target - codes * np.float64(step)
    return float(np.einsum("grk,grk->", error @ second, error)) + multiplier * bits


def coded_bits(layer, codes):
    rows, columns, *kernel = layer.weight_shape
    layout = Layout(rows, columns, int(np.prod(kernel[:-1], dtype=int)), kernel[-1] if kernel else 1)
    symbols = (layer.from_matrix(codes) - codes.min()).reshape(-1).astype(np.int16)
    coding, _ = choose_coding(symbols, layout)
    encoder = Encoder()
    encode(symbols, layout, coding, encoder)
    return 8 * len(encoder.data)


@pytest.mark.parametrize("node", ["stem", "wide", "deep", "last", "fc"])
@pytest.mark.parametrize("multiplier", [1e-5, 1e-3])
def test_it_beats_plain_rounding_at_every_multiplier(found, node, multiplier):
    layer = found[node]
    target, second = problem(layer)
    solution = solve_rate(layer, target, second, multiplier)
    own = cost(target, second, solution.codes, solution.scale[..., None], solution.bits, multiplier)
    assert own == pytest.approx(solution.distortion + multiplier * solution.bits, rel=1e-6)
    best = high_rate_scale(inverse_factor(second), multiplier)
    for share in (0.5, 1.0, 1.5, 2.0):
        plain = np.rint(target / (best * share)).clip(-LARGEST, LARGEST).astype(np.int32)
        assert own < cost(target, second, plain, best * share, coded_bits(layer, plain), multiplier)


@pytest.mark.parametrize("node", ["stem", "deep", "last"])
def test_its_bits_are_those_that_the_coder_writes(found, node):
    layer = found[node]
    target, second = problem(layer, 1)
    solution = solve_rate(layer, target, second, 1e-4)
    # The coder may find a better context for the codes in the end, and ends on a whole word.
    assert coded_bits(layer, solution.codes) <= 1.02 * solution.bits + 64


@settings(max_examples=12)
@given(st.floats(-7, 1), st.integers(0, 99))
def test_a_higher_multiplier_takes_fewer_bits_and_more_distortion(found, exponent, seed):
    layer = found["back"]
    target, second = problem(layer, seed)
    cheap, dear = (solve_rate(layer, target, second, 10.0**at) for at in (exponent, exponent + 1))
    # Rounding is no exact search: where both end on the finest grid, either may be the luckier one.
    assert dear.bits <= 1.01 * cheap.bits + 8
    assert dear.distortion >= 0.9 * cheap.distortion
    assert max(np.abs(cheap.codes).max(), np.abs(dear.codes).max()) <= LARGEST


def test_at_an_absurd_multiplier_nothing_is_left_and_at_none_the_grid_is_the_finest(found):
    layer = found["last"]
    target, second = problem(layer)
    assert not solve_rate(layer, target, second, 1e9).codes.any()
    finest = solve_rate(layer, target, second, 1e-20)
    assert np.abs(finest.codes).max() == LARGEST
    # Single weights may end some steps away, where others make up for it: what counts is the output.
    step = np.abs(target).max() / LARGEST
    assert finest.distortion < 0.5 * cost(target, second, np.rint(target / step), step, 0.0, 0.0)
    np.testing.assert_allclose(finest.codes * finest.scale[..., None], target, atol=5 * step)


def test_rows_too_large_for_a_code_do_not_make_the_others_coarser(found):
    """As in depthwise layers whose weights took in batch norms."""
    layer = found["wide"]
    target, second = problem(layer, 2)
    multiplier = 1e-5
    alone = solve_rate(layer, target, second, multiplier)
    assert np.unique(alone.scale).size == 1
    large = target.copy()
    large[:, 1] *= 300.0
    solution = solve_rate(layer, large, second, multiplier)
    assert np.abs(solution.codes).max() <= LARGEST

    def row_errors(solution, target):
        error = target - solution.codes * np.float64(solution.scale[..., None])
        return np.einsum("grk,gkl,grl->gr", error, second, error)

    others = np.arange(target.shape[1]) != 1
    before, after = row_errors(alone, target)[:, others].sum(), row_errors(solution, large)[:, others].sum()
    assert after < 1.3 * before
    # The large row has nearly all of its eight bits.
    assert np.abs(solution.codes[:, 1]).max() > 0.9 * LARGEST
    assert row_errors(solution, large)[:, 1].max() < 1e-3 * np.square(large[:, 1]).sum() * np.abs(second).max()


def test_rows_that_a_finer_scale_would_clip_get_little_more_than_they_need(found):
    layer = found["back"]
    target, _ = problem(layer, 6)
    needed = np.abs(target).max(axis=2) / LARGEST
    wanted = float(np.median(needed))
    ratio = row_scales(layer, target, wanted) / np.maximum(needed, wanted)
    assert np.all(ratio >= 1 - 1e-6)
    assert 1.01 < ratio.max() <= 2 ** (1 / 8) + 1e-6


def test_rows_that_are_no_channels_of_the_weight_share_a_scale():
    """Of a transposed convolution in groups: its weight has one axis for the outputs of all groups."""
    weights = {"w": np.ones((4, 3, 2, 2))}
    node = make_node("ConvTranspose", "x w", "y", group=2, kernel_shape=[2, 2])
    (layer,) = layers(lowbit.load(make([node], {"x": ["n", 4, 5, 5]}, ["y"], weights)))
    target = np.ones(layer.to_matrix(weights["w"]).shape)
    target[:, 0] *= 1000
    assert np.unique(row_scales(layer, target, 1e-3)) == pytest.approx(1000 / LARGEST)


def test_a_layer_of_zeros_stays_one(found):
    layer = found["deep"]
    target, second = problem(layer)
    solution = solve_rate(layer, np.zeros_like(target), second, 1e-4)
    assert not solution.codes.any()
    assert np.all(solution.scale > 0)


@pytest.mark.parametrize("node", ["wide", "deep", "last", "fc"])
def test_a_wider_beam_comes_closer_at_the_same_multiplier(found, node):
    layer = found[node]
    target, second = problem(layer, 3)
    one, few, many = (solve_rate(layer, target, second, 1e-4, beam_width=width) for width in (1, 4, 64))
    costs = [cost(target, second, each.codes, each.scale[..., None], each.bits, 1e-4) for each in (one, few, many)]
    assert costs[1] < 0.985 * costs[0]
    # A beam of four is nearly all that a row of eight weights has need of.
    assert costs[2] <= costs[1] * (1 + 1e-6 if target.shape[2] < 9 else 0.998)


def test_with_inputs_that_do_not_depend_on_each_other_a_beam_of_one_is_all_there_is(found):
    layer = found["deep"]
    target, second = problem(layer, 4)
    second = second * np.eye(second.shape[-1])
    one, many = (solve_rate(layer, target, second, 1e-4, beam_width=width) for width in (1, 16))
    np.testing.assert_array_equal(one.codes, many.codes)


def test_rows_searched_in_parts_get_the_codes_of_rows_searched_at_once(found, monkeypatch):
    layer = found["wide"]
    target, second = problem(layer, 5)
    whole = solve_rate(layer, target, second, 1e-4, beam_width=8)
    monkeypatch.setattr(rate, "HELD", 8 * target.shape[0] * target.shape[2] * 3)
    np.testing.assert_array_equal(solve_rate(layer, target, second, 1e-4, beam_width=8).codes, whole.codes)

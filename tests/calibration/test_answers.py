"""Answers of samples whose shapes differ are judged, and what depends on more than shapes is left out."""

import numpy as np
import pytest

import lowbit
import many_inputs
from lowbit.calibration.answers import (
    UNRELATED,
    are_classes,
    by_sample,
    distances,
    float_answers,
    per_image,
    relative_errors,
)
from lowbit.calibration.batches import as_runs
from lowbit.calibration.divergence import mean_kl
from lowbit.quantization.passes.validation import NOT_JUDGED, RELATIVE_ERROR, Validation

RNG = np.random.default_rng(0)


def test_lengths_that_follow_the_inputs_are_kept():
    parts = {"y": [RNG.normal(size=(1, n, 3)) for n in (4, 6, 4)]}
    found = per_image(parts, [1, 1, 1], kinds=[(4,), (6,), (4,)])
    assert [sample.shape for sample in found["y"]] == [(4, 3), (6, 3), (4, 3)]
    assert per_image(parts, [1, 1, 1]) == {}  # of inputs that are all alike


def test_selections_are_left_out():
    parts = {"boxes": [RNG.normal(size=(n, 4)) for n in (4, 6, 0)]}
    assert per_image(parts, [1, 1, 1], kinds=[(8,), (8,), (9,)]) == {}


@pytest.mark.parametrize("sizes", [[4, 2], [1] * 6, [6]])
def test_rows_and_numbers_and_maps_of_any_runs(sizes):
    whole = {"row": RNG.normal(size=(6, 5)), "number": RNG.normal(size=6), "maps": RNG.normal(size=(6, 2, 3, 3))}
    ends = np.cumsum(sizes)[:-1]
    for x in whole.values():
        np.testing.assert_array_equal(by_sample(np.split(x, ends), sizes), x)


def test_relative_errors_of_lists_and_arrays_agree():
    wanted = RNG.normal(size=(8, 5, 3))
    given = wanted + RNG.normal(0, 0.1, wanted.shape)
    as_lists = relative_errors({"y": list(wanted)}, {"y": list(given)})
    np.testing.assert_allclose(as_lists, relative_errors({"y": wanted}, {"y": given}), rtol=1e-9)


def test_lengths_count_alike_and_another_shape_as_unrelated():
    wanted = [RNG.normal(size=(n, 3)) for n in (2, 50, 7)]
    variance = np.concatenate(wanted).var(axis=0)
    given = [wanted[0] + 0.1, wanted[1] + 0.1, wanted[2][:3]]
    expected = 0.01 * np.mean(1 / variance)
    found = relative_errors({"y": wanted}, {"y": given})
    np.testing.assert_allclose(found, [expected, expected, UNRELATED])
    assert np.isinf(relative_errors({"y": wanted}, {})).all()


def test_square_answers_of_different_sizes_have_one_channel():
    wanted = [RNG.normal(size=(n, n)) for n in (3, 4)]
    given = [x + 0.1 for x in wanted]
    variance = np.concatenate([x.ravel() for x in wanted]).var()
    np.testing.assert_allclose(relative_errors({"y": wanted}, {"y": given}), 0.01 / variance)


def test_distances_are_a_classifiers_divergence_or_relative_errors():
    logits = RNG.normal(size=(9, 4))
    other = logits + RNG.normal(0, 0.1, logits.shape)
    assert are_classes({"y": logits})
    assert distances({"y": logits}, {"y": other}).mean() == pytest.approx(mean_kl(logits, other))
    two = {"y": logits, "z": logits}
    np.testing.assert_allclose(distances(two, two | {"z": other}), relative_errors({"z": logits}, {"z": other}) / 2)
    assert np.isinf(distances({"y": logits}, {})).all()


def sequences(lengths):
    return [RNG.normal(size=(length, 6)).astype(np.float32) for length in lengths]


def test_steps_of_networks_for_sequences_are_judged():
    model = lowbit.load(many_inputs.no_batch().model)
    quantized = lowbit.quantize(model, "linear3", calibration=sequences(RNG.integers(5, 30, 60)), steps=["rounding"])
    (step,) = quantized.steps
    assert step.measure == RELATIVE_ERROR != NOT_JUDGED
    assert 0 < step.before < 1
    assert step.kept
    assert step.after < step.before


def test_float_answers_hold_every_output_of_every_sample():
    model = lowbit.load(many_inputs.no_batch().model)
    data = as_runs(model, lowbit.open_data(sequences((5, 9, 7)), model))
    found = float_answers(model.to_bytes(), model, data)
    assert [sample.shape for sample in found["y"]] == [(5, 3), (9, 3), (7, 3)]
    assert Validation(model, data).measure == RELATIVE_ERROR

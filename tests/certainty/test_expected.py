"""The drop that is to be expected is right in the mean, and chance makes less of it than of what is counted."""

import numpy as np
import pytest

from lowbit.certainty.expected import expected_drop, margins

CLASSES = 5


def network(samples, *, seed, noise=0.6, shrink=0.9):
    """Scores of a classifier that is mostly right, of a file with errors of its own, and the classes."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, CLASSES, samples)
    scores = random.normal(size=(samples, CLASSES)) * 1.5
    scores[np.arange(samples), classes] += 3.0
    return scores, shrink * scores + noise * random.normal(size=scores.shape), classes


def counted(scores, others, classes):
    return float((scores.argmax(1) == classes).mean() - (others.argmax(1) == classes).mean())


@pytest.mark.parametrize(("noise", "shrink"), [(0.3, 1.0), (0.6, 0.9)])
def test_it_is_the_drop_of_many_samples_with_less_of_chance(noise, shrink):
    many = network(200_000, seed=0, noise=noise, shrink=shrink)
    truth = counted(*many)
    few = [network(200, seed=seed, noise=noise, shrink=shrink) for seed in range(1, 201)]
    expected, counts = (np.array([told(*each) for each in few]) for told in (expected_drop, counted))
    assert expected_drop(*many) == pytest.approx(truth, abs=0.1 * truth)
    assert expected.mean() == pytest.approx(truth, abs=3 * counts.std() / np.sqrt(len(few)))
    assert expected.std() < 0.8 * counts.std()


def test_one_answer_that_changes_by_a_hair_is_no_half_of_a_point():
    scores, _, classes = network(186, seed=3)
    scores[0] = 0.0
    scores[0, classes[0]] = 1e-3
    others = scores + 0.01 * np.random.default_rng(4).normal(size=scores.shape)
    others[0, classes[0]] = -0.02
    assert counted(scores, others, classes) == pytest.approx(1 / 186)
    assert abs(expected_drop(scores, others, classes)) < 0.6 / 186


def test_the_same_answers_lose_nothing_and_levels_of_samples_do_not_matter():
    scores, others, classes = network(100, seed=5)
    assert expected_drop(scores, scores, classes) == 0.0
    levels = np.random.default_rng(6).normal(size=(100, 1)) * 10
    assert expected_drop(scores, others + levels, classes) == pytest.approx(expected_drop(scores, others, classes))
    assert expected_drop(7 * scores, 7 * others, classes) == pytest.approx(expected_drop(scores, others, classes))


def test_without_labels_it_is_the_share_of_answers_that_change():
    scores, others, _ = network(20_000, seed=7)
    changed = float((scores.argmax(1) != others.argmax(1)).mean())
    assert expected_drop(scores, others, scores.argmax(1)) == pytest.approx(changed, rel=0.05)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_tells_nothing(place, value):
    both = list(network(50, seed=8))
    both[place] = both[place].copy()
    both[place][3, 1] = value
    assert np.isnan(expected_drop(*both))


def test_margins_are_above_zero_where_an_answer_is_right():
    scores, _, classes = network(100, seed=9)
    np.testing.assert_array_equal(margins(scores, classes) > 0, scores.argmax(1) == classes)
    np.testing.assert_allclose(margins(np.array([[1.0, 4.0, 2.5]]), np.array([2])), [-1.5])

import hashlib

import numpy as np
import pytest

from lowbit.data.hands import CLASS_NAMES, COUNTS, SIZE, builtin, render
from lowbit.errors import DataError

# SHA-256 of the first six images of each split: the same on every machine, or trained checkpoints lose their meaning.
FIRST_SIX = {
    "train": "0e7449c8ce2a6fa64fc441301bcd3a82e8a4a28e457bd77cff435385d14e5694",
    "test": "e2a6f524f585ef61836255b046c3f70084a75d35815288fe0078cce9ec7e3182",
    "calibration": "54bb6a405cb78a0777e74ea09bd253635a08a18f09b2e89ec3530b369c22455d",
}


@pytest.mark.parametrize("split", COUNTS)
def test_the_pixels_are_the_same_everywhere(split: str) -> None:
    hands, _ = builtin(split)
    assert hashlib.sha256(b"".join(image.tobytes() for image in hands[:6])).hexdigest() == FIRST_SIX[split]


@pytest.mark.parametrize(("split", "count"), [("train", 2520), ("test", 372), ("calibration", 300)])
def test_counts_and_balance(split: str, count: int) -> None:
    hands, labels = builtin(split)
    assert len(hands) == len(labels) == count
    assert np.bincount(labels).tolist() == [count // 3] * 3
    assert np.bincount(labels[:10]).tolist() == [4, 3, 3]


def test_no_image_is_in_two_splits() -> None:
    digests = [hashlib.sha256(image.tobytes()).digest() for split in COUNTS for image in builtin(split)[0][:120]]
    assert len(set(digests)) == 3 * 120


def test_an_image_does_not_depend_on_what_was_drawn_before() -> None:
    hands, _ = builtin("test")
    alone = hands[7]
    assert np.array_equal(alone, builtin("test")[0][:8][7])
    assert np.array_equal(alone, hands[5:9][2])
    with pytest.raises(IndexError):
        hands[372]


@pytest.mark.parametrize("kind", CLASS_NAMES)
def test_a_hand_fills_a_fair_part_of_a_varied_image(kind: str) -> None:
    for seed in range(5):
        image = render(kind, np.random.default_rng(seed))
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == np.uint8
        assert image.astype(float).std() > 8


def test_an_unknown_split_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"no built-in split 'validation'.*train, test, calibration"):
        builtin("validation")

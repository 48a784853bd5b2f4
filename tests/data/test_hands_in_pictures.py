import hashlib

import numpy as np
import pytest
from PIL import Image

from lowbit.data.hands import CLASS_NAMES, cut_out
from lowbit.data.hands_in_pictures import SIDES, SIZE, SPLITS, hand_pictures
from lowbit.errors import DataError

# SHA-256 of the first six pictures and their boxes: the same everywhere, or the trained detector loses its meaning.
FIRST_SIX = {
    "train": "6e3dfc16d4404557d2d5e15ed0afd764a6077444eb2680829cf9f04327fef191",
    "test": "e5f84d1317320b88bd7a62988766c06a60f04ca20d0b81b7b3cc2df1eebfb003",
    "calibration": "5bb7e314452643419a7454359e823121b66386799d631ad480af917d75fb5496",
}


def digest(pictures) -> str:
    boxes = b"".join(each["boxes"].tobytes() + each["labels"].tobytes() for each in pictures.labels)
    return hashlib.sha256(pictures.images.tobytes() + boxes).hexdigest()


@pytest.mark.parametrize("split", SPLITS)
def test_the_pictures_are_the_same_everywhere(split):
    assert digest(hand_pictures(split, 6)) == FIRST_SIX[split]


def test_a_picture_does_not_depend_on_those_before_it():
    some, later = hand_pictures("test", 8), hand_pictures("test", 3, first=5)
    assert np.array_equal(some.images[5:], later.images)
    assert all(np.array_equal(a["boxes"], b["boxes"]) for a, b in zip(some.labels[5:], later.labels, strict=True))


def test_boxes_lie_in_the_picture_and_hardly_overlap():
    pictures = hand_pictures("train", 60)
    assert {int(kind) for each in pictures.labels for kind in each["labels"]} == set(range(len(CLASS_NAMES)))
    assert {len(each["boxes"]) for each in pictures.labels} == {1, 2, 3, 4}
    for each in pictures.labels:
        boxes = each["boxes"]
        assert boxes.dtype == np.float32
        assert boxes.min() >= 0
        assert boxes.max() <= SIZE
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        assert sides.min() >= SIDES[0]
        assert sides.max() <= SIDES[1]
        covered = np.zeros((SIZE, SIZE), int)
        for x0, y0, x1, y1 in boxes.astype(int):
            covered[y0:y1, x0:x1] += 1
        assert (covered > 1).sum() <= 0.1 * (covered > 0).sum()


def test_what_is_in_a_box_is_what_makes_the_picture_differ(monkeypatch):
    """Without hands the same picture differs inside the boxes only, up to the shade of a blur."""
    from lowbit.data import hands_in_pictures as module

    plain = {}
    monkeypatch.setattr(module, "photograph", lambda image, generator: np.asarray(image))
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(Image.Image, "paste", lambda *_: None)
        plain[name] = hand_pictures("test", 5)
    for some, others, label in zip(plain["with"].images, plain["without"].images, plain["with"].labels, strict=True):
        changed = (some != others).any(axis=2)
        inside = np.zeros_like(changed)
        for x0, y0, x1, y1 in label["boxes"].astype(int):
            inside[y0:y1, x0:x1] = True
            assert changed[y0:y1, x0:x1].mean() > 0.25
        assert not changed[~inside].any()


@pytest.mark.parametrize("kind", CLASS_NAMES)
def test_a_cut_out_hand_touches_all_four_sides(kind):
    hand = cut_out(kind, np.random.default_rng(3))
    assert hand.mode == "RGBA"
    seen = np.asarray(hand)[..., 3] > 0
    assert all(edge.any() for edge in (seen[0], seen[-1], seen[:, 0], seen[:, -1]))


def test_no_hand_is_in_two_splits():
    from lowbit.data.hands_in_pictures import _hand

    digests = [hashlib.sha256(_hand(split, number).tobytes()).digest() for split in SPLITS for number in range(20)]
    assert len(set(digests)) == 3 * 20


def test_an_unknown_split_is_refused_by_name():
    with pytest.raises(DataError, match=r"no split 'validation'.*train, test, calibration"):
        hand_pictures("validation", 1)

"""Files that several passes read are decoded once, as far as memory allows, and nothing else changes."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import lowbit
from lowbit.data.kept_pixels import KeptPixels

COUNT, SIDE = 6, 8


@pytest.fixture
def images(tmp_path):
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (COUNT, 12, 10, 3), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    opened = lowbit.open_images(tmp_path, lowbit.Preprocessing(SIDE, SIDE, mean=(0.5,) * 3, std=(0.2,) * 3))
    read, decoded = opened.source.read, []
    source = dataclasses.replace(
        opened.source, read=lambda place, channels: decoded.append(place) or read(place, channels)
    )
    return dataclasses.replace(opened, source=source), decoded


def inputs(images):
    return np.concatenate([batch.x for batch in images.batches(4)])


def test_parts_of_a_set_share_what_was_decoded(images):
    images, decoded = images
    wanted, fingerprint = inputs(images), images.fingerprint()
    keeping = images.keeping()
    decoded.clear()
    np.testing.assert_array_equal(inputs(keeping), wanted)
    others, some = keeping.apart(2)
    assert sorted(map(tuple, np.concatenate([inputs(others), inputs(some)]).reshape(COUNT, -1))) == sorted(
        map(tuple, wanted.reshape(COUNT, -1))
    )
    assert keeping.select(range(COUNT)).fingerprint() == fingerprint
    assert len(decoded) == COUNT


@pytest.mark.parametrize("kept", [0, 2])
def test_what_does_not_fit_is_decoded_again(images, kept):
    images, decoded = images
    keeping = dataclasses.replace(images, kept=KeptPixels(kept * SIDE * SIDE * 3 + 1))
    wanted = inputs(images)
    decoded.clear()
    for _ in range(2):
        np.testing.assert_array_equal(inputs(keeping), wanted)
    assert len(decoded) == 2 * COUNT - kept


def test_another_size_decodes_anew(images):
    """However a set comes by it."""
    keeping = images[0].keeping()
    wanted = inputs(keeping)
    how = lowbit.Preprocessing(2 * SIDE, SIDE)
    for other in (lowbit.open_images(keeping, how), dataclasses.replace(keeping, preprocessing=how)):
        assert inputs(other).shape == (COUNT, 3, 2 * SIDE, SIDE)
    np.testing.assert_array_equal(inputs(keeping), wanted)

"""Pictures with several of the built-in hands, and the box and class of each: what a detector learns and is judged on.

A picture is a background of `hands_scene` with one to four hands from `hands.cut_out` at random sizes and places, few
of which overlap, and then the faults of a camera. Picture `index` of a split depends on (`SEED`, split, index) only,
and no hand of one split is in another.

Limits: hands have no arms here, and their light and their background's are not the same.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lowbit.data.hands import CLASS_NAMES, cut_out
from lowbit.data.hands_scene import Pixels, photograph, surroundings
from lowbit.errors import DataError

SIZE = 96
SEED = 1  # another one is another data set; that of single hands is 0
SPLITS = ("train", "test", "calibration")
HANDS = 480  # of each split, from which its pictures take theirs
LARGEST = 4  # hands in a picture
SIDES = (28, 60)  # the longer side of a hand in a picture, in pixels
OVERLAP = 0.1  # of two boxes, by intersection over the smaller
TRIES = 12  # for a place where a hand covers no other

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class HandPictures:
    """Pictures and what is in them.

    Attributes:
        images: uint8 [count, 96, 96, 3].
        labels: of each, `boxes` float32 [hands, 4] as x0, y0, x1, y1 in pixels, and `labels` int64 [hands] into
            `CLASS_NAMES`: as the task `detection` takes them.
    """

    images: npt.NDArray[np.uint8]
    labels: tuple[dict[str, npt.NDArray[Any]], ...]


def hand_pictures(split: str, count: int, *, first: int = 0) -> HandPictures:
    """Draw pictures of a split.

    Args:
        split: "train", "test" or "calibration".
        count: how many.
        first: number of the first; there is no end to them.

    Raises:
        DataError: there is no such split.
    """
    if split not in SPLITS:
        raise DataError(f"there is no split {split!r} of pictures.", remedy=f"Use one of {', '.join(SPLITS)}.")
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    labels: list[dict[str, npt.NDArray[Any]]] = []
    for index in range(count):
        images[index], boxes, classes = _picture(split, first + index)
        labels.append({"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.array(classes, np.int64)})
    return HandPictures(images, tuple(labels))


def _picture(split: str, index: int) -> tuple[Pixels, list[Box], list[int]]:
    generator = _generator(split, 1, index)
    picture = surroundings(generator, SIZE).background
    boxes: list[Box] = []
    classes: list[int] = []
    for _ in range(int(generator.integers(1, LARGEST + 1))):
        number = int(generator.integers(HANDS))
        hand = _resized(_hand(split, number), int(generator.integers(SIDES[0], SIDES[1] + 1)))
        place = _free_place(hand.size, boxes, generator)
        if place is None:
            continue
        picture.paste(hand, place[:2], hand)
        boxes.append(place)
        classes.append(number % len(CLASS_NAMES))
    return photograph(picture, generator), boxes, classes


@lru_cache(2 * HANDS)
def _hand(split: str, number: int) -> Image.Image:
    return cut_out(CLASS_NAMES[number % len(CLASS_NAMES)], _generator(split, 0, number))


def _generator(split: str, what: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([SEED, SPLITS.index(split), what, index])))


def _resized(hand: Image.Image, side: int) -> Image.Image:
    """The hand with a longer side of `side` pixels."""
    width, height = hand.size
    longest = max(width, height)
    size = (max(1, width * side // longest), max(1, height * side // longest))
    return hand.resize(size, Image.Resampling.BOX)


def _free_place(size: tuple[int, int], taken: list[Box], generator: np.random.Generator) -> Box | None:
    """Where a hand covers hardly anything of another; None if no place is found."""
    width, height = size
    for _ in range(TRIES):
        x, y = int(generator.integers(SIZE - width + 1)), int(generator.integers(SIZE - height + 1))
        box = (x, y, x + width, y + height)
        if all(_shared(box, other) <= OVERLAP for other in taken):
            return box
    return None


def _shared(one: Box, other: Box) -> float:
    """Intersection over the smaller of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(width, 0) * max(height, 0) / min(areas)

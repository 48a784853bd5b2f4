"""Sequences and generators of arrays -> `Source`, with labels where they have any.

A sequence of single images is read again whenever they are needed; anything else is read once and kept in memory. What
the numbers mean is decided as for one array: `lowbit.data.arrays`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from PIL import Image

from lowbit.data import arrays
from lowbit.data.arrays import GIVEN, numeric
from lowbit.data.sources import Array, Source
from lowbit.data.targets import as_target, understood
from lowbit.errors import DataError
from lowbit.graph.preprocessing import Preprocessing

KEEP_BYTES = 1 << 30


def from_iterable(items: object, preprocessing: Preprocessing | None, *, values: str = "detect") -> Source:
    """Any iterable of arrays or (array, label); items of 4 dimensions are batches and are split into images.

    A sequence of single images is read again whenever they are needed, in the calling thread, and once at the start for
    labels and ranges. Anything else (generators, data loaders) is read once and kept, at most 1 GiB. An array, and a
    pair (images, labels) of arrays, are taken as a whole.

    Raises:
        DataError: as `arrays.from_array`; some items with labels and some without; more than can be kept.
    """
    if isinstance(items, np.ndarray):
        return arrays.from_array(items, None, preprocessing, values=values)
    if _is_pair_of_arrays(items):
        images, labels = cast(Any, items)
        return arrays.from_array(numeric(images, GIVEN), labels, preprocessing, values=values)
    if isinstance(items, str | bytes | Mapping) or not (hasattr(items, "__iter__") or _is_indexed(items)):
        raise DataError(
            f"images cannot be read from a {type(items).__name__}.",
            remedy="Give a folder, a .npz file, builtin:train, builtin:test or builtin:calibration, or arrays.",
        )
    channels = 3 if preprocessing is None else preprocessing.channels
    sequence = _rereadable(items, channels)
    first_pass = _FirstPass(items, channels, keep=sequence is None)
    survey = arrays.inspect(first_pass, GIVEN)
    kept = first_pass.kept

    def read(index: int, wanted: int) -> Array:
        if sequence is None:
            return kept[index]
        where = f"{GIVEN}, image {index}"
        image, _ = _split(sequence[index], wanted, where)
        if image.shape != survey.shape:
            raise DataError(f"the shape is {image.shape} now, and was {survey.shape}.", where=where)
        return image

    origin = ("object", id(kept if sequence is None else sequence))
    labels, targets = understood(first_pass.labels, survey.count, GIVEN) if first_pass.labels else (None, None)
    source = Source(GIVEN, origin, tuple(range(survey.count)), read, labels, parallel=sequence is None, targets=targets)
    return arrays.interpreted(source, survey, preprocessing, values)


class _FirstPass:
    """Each image once, as an iterable that notes the labels, and keeps the images if they cannot be read again.

    Raises:
        DataError: some images with labels and some without, or more to keep than `KEEP_BYTES`.
    """

    def __init__(self, items: object, channels: int, *, keep: bool) -> None:
        self.items, self.channels, self.keep = items, channels, keep
        self.labels: list[object] = []
        self.kept: list[Array] = []

    def __iter__(self) -> Iterator[Array]:
        size = count = 0
        for number, item in enumerate(in_order(self.items)):
            where = f"{GIVEN}, item {number}"
            array, label = _split(item, self.channels, where)
            # What can be read again was seen to hold single images.
            images = array if array.ndim == 4 and self.keep else array[None]
            given = [] if label is None else cast(Any, label) if array.ndim == 4 else [label]
            labels = [as_target(one, where) for one in given]
            if (count and bool(labels) != bool(self.labels)) or (labels and len(labels) != len(images)):
                raise DataError("some images have a label and some have none.", where=where)
            self.labels.extend(labels)
            count += len(images)
            size += images.nbytes
            if self.keep and size > KEEP_BYTES:
                raise DataError(
                    f"images that can be read only once are kept in memory, at most {KEEP_BYTES >> 20} MiB of them.",
                    where=GIVEN,
                    remedy="Give a sequence, a folder or an uncompressed .npz, or fewer images.",
                )
            for image in images:
                if self.keep:
                    # A loader may use one buffer for every item.
                    self.kept.append(image.copy())
                yield image


def _is_pair_of_arrays(items: object) -> bool:
    """Whether this is (images, labels), not a sequence of two images or a pair of batches."""
    if not (isinstance(items, tuple) and len(items) == 2 and getattr(items[0], "ndim", 0) >= 3):
        return False
    images, labels = items
    if isinstance(labels, list | tuple):
        return len(labels) == len(images)
    return 0 < int(getattr(labels, "ndim", 0)) < int(images.ndim)  # with as many dimensions they are two batches


def _rereadable(items: object, channels: int) -> Sequence[object] | None:
    """The items, if they are a sequence of single images, which need not be kept."""
    if not _is_indexed(items):
        return None
    sequence = cast("Sequence[object]", items)
    if len(sequence) and _split(sequence[0], channels, f"{GIVEN}, item 0")[0].ndim == 4:
        return None
    return sequence


def _is_indexed(items: object) -> bool:
    return hasattr(items, "__len__") and hasattr(items, "__getitem__")


def in_order(items: object) -> Iterator[Any]:
    """The items of anything that has a length and items, or can be iterated."""
    # Data sets of other libraries have a length and items, and often no end of iteration.
    source = cast(Any, items)
    return (source[i] for i in range(len(source))) if _is_indexed(items) else iter(source)


def _split(item: object, channels: int, where: str) -> tuple[Array, object | None]:
    """An item's array, and its label if it is a pair (a batch of images has a row of labels)."""
    if isinstance(item, tuple | list) and len(item) == 2:
        image, label = _dimensions(item[0]), item[1]
        # With as many dimensions the two are images; a batch has a row of labels.
        if image >= 3 and (isinstance(label, Mapping) or (image == 4) <= _dimensions(label) < image):
            return numeric(item[0], where, channels), label
        if image < 3 and _dimensions(label) == 0:
            return numeric(item[0], where, channels), label
    return numeric(item, where, channels), None


def _dimensions(value: object) -> int:
    if isinstance(value, Image.Image):
        return 3
    try:
        return np.ndim(cast(Any, value))
    except (ValueError, TypeError, RuntimeError):
        return -1

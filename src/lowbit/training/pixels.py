"""All training images as one uint8 array in memory, and the stratified split into training and validation."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowbit.data.images import open_images
from lowbit.errors import DataError
from lowbit.progress import SILENT, Progress

LARGEST_BYTES = 8 << 30


@dataclass(frozen=True, eq=False)
class PixelSet:
    """Images uint8 [n, size, size, 3], labels int64 [n], class names, and the SHA-256 of pixels and labels."""

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.images)


def read_pixels(
    data: Path | str, *, size: int, limit: int | None = None, classes: tuple[str, ...] | None = None,
    progress: Progress = SILENT,
) -> PixelSet:  # fmt: skip
    """Read a folder of class folders, or a built-in split, at `size` x `size` pixels.

    Args:
        data: where the images are.
        size: side in pixels; other sizes are resampled.
        limit: maximum number of images, each class in proportion.
        classes: names in the order of the labels; alphabetical by default.
        progress: shows the reading.

    Raises:
        DataError: no such folder, no labels, fewer than two classes, unreadable images, or too many for memory.
    """
    opened = open_images(data, None, limit=limit, classes=classes)
    if opened.labels is None or opened.class_names is None or len(opened.class_names) < 2:
        raise DataError(
            "training needs images of at least two classes.",
            where=str(data),
            remedy="Give a folder with one folder of images for each class.",
        )
    count = opened.count
    if count * size * size * 3 > LARGEST_BYTES:
        raise DataError(
            f"{count} images of {size}x{size} do not fit into memory.",
            where=str(data),
            remedy="Use a smaller --image-size.",
        )
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    for index, (pixels, _) in enumerate(progress.track(opened.pixels(size), f"reading {opened.name}", total=count)):
        images[index] = pixels
    labels = np.asarray(opened.labels, dtype=np.int64)
    digest = hashlib.sha256(images.data)
    digest.update(labels.tobytes())
    return PixelSet(opened.name, images, labels, opened.class_names, digest.hexdigest())


def shared_images(first: PixelSet, second: PixelSet) -> int:
    """How many images of `second` are, pixel for pixel, in `first`."""
    known = {hashlib.sha256(image.data).digest() for image in first.images}
    return sum(hashlib.sha256(image.data).digest() in known for image in second.images)


def stratified_split(
    labels: npt.NDArray[np.int64], *, share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices for training and for validation; the latter get `share` of every class, at least one image.

    Raises:
        DataError: a class with fewer than two images.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1])))
    chosen: list[npt.NDArray[np.int64]] = []
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        if len(members) < 2:
            raise DataError(f"class {label} has a single image.", remedy="Training needs at least two of each class.")
        count = min(len(members) - 1, max(1, round(share * len(members))))
        chosen.append(generator.permutation(members)[:count])
    validation = np.sort(np.concatenate(chosen)).astype(np.int64)
    training = np.setdiff1d(np.arange(len(labels), dtype=np.int64), validation)
    return training, validation

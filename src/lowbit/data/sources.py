"""Where images come from, as one `Source`: a list of places and a function that reads one of them.

So nothing is held in memory that can be read again, and folders, arrays and the built-in set look alike to all who use
them. Arrays have rules of their own: `lowbit.data.arrays`.
"""

import dataclasses
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.data import decode, hands
from lowbit.errors import DataError

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]
Place = Path | int

# Made by archivers beside the real folders.
IGNORED_FOLDERS = frozenset({"__MACOSX"})
SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "calibration", "eval"})
DRAWN_IMAGES_KEPT = 2520


@dataclass(frozen=True, eq=False)
class Source:
    """Images that can be read one by one, in any order.

    Args:
        name: what the user calls them.
        origin: equal origins and equal places mean the same image.
        places: a file path or an index for each image.
        read: (place, channels) -> the array as it is stored; files give uint8 [height, width, channels].
        labels: int64 [count], or None.
        class_names: in the order of the labels, or None.
        values: "bytes" (0..255), "unit" (0..1) or "model" (already normalized): what the numbers mean.
        layout: "HWC", "CHW" or "HW"; None if the arrays are not images.
        resizable: images may have any size and are scaled; others must have the model's size.
        parallel: `read` may be called from several threads at once.
    """

    name: str
    origin: Hashable
    places: tuple[Place, ...]
    read: Callable[[Any, int], Array]
    labels: Labels | None = None
    class_names: tuple[str, ...] | None = None
    values: str = "bytes"
    layout: str | None = "HWC"
    resizable: bool = True
    parallel: bool = True

    def where(self, place: Place) -> str:
        """How an error names one image."""
        return str(place) if isinstance(place, Path) else f"{self.name}, image {place}"

    def pixels(self, place: Place, channels: int = 3) -> decode.Pixels:
        """One image as uint8 [height, width, channels] at its own size; fractions are rounded to 256 levels.

        Raises:
            DataError: unreadable, values out of range, or a model's input and not an image.
        """
        stored = self.read(place, channels)
        if self.values == "model" or self.layout is None:
            raise DataError(
                "these arrays are inputs of a model, not images.",
                where=self.where(place),
                remedy="Give image files, or arrays of pixels 0..255.",
            )
        if stored.dtype != np.uint8:
            top = 1.0 if self.values == "unit" else 255.0
            if not (stored.min() >= 0 and stored.max() <= top):
                raise DataError(f"values leave the range 0..{top:g}.", where=self.where(place), remedy="Store uint8.")
            stored = np.rint(stored.astype(np.float64) * (255.0 / top)).astype(np.uint8)
        if self.layout == "HW":
            return stored[:, :, None]
        return np.ascontiguousarray(stored.transpose(1, 2, 0)) if self.layout == "CHW" else stored

    def select(self, chosen: Sequence[int]) -> "Source":
        """The same source with these images only."""
        labels = None if self.labels is None else self.labels[np.asarray(chosen, dtype=np.int64)]
        return dataclasses.replace(self, places=tuple(self.places[i] for i in chosen), labels=labels)


def from_folder(folder: Path, classes: Sequence[str] | None = None) -> Source:
    """A folder of class folders (class index = alphabetical order, or the order of `classes`), or a flat folder.

    Subfolders of a class folder belong to the class. Hidden files, and files that are no images, are passed over.

    Raises:
        DataError: no images, a class folder without any, a folder that `classes` does not name, images beside class
            folders, an image format that lowbit does not read, or a folder of splits.
    """
    try:
        entries = sorted((entry for entry in folder.iterdir() if not _is_hidden(entry.name)), key=lambda e: e.name)
    except OSError as error:
        raise DataError(f"cannot read the folder: {error.strerror}.", where=str(folder)) from error
    loose = [entry for entry in entries if _is_image(entry)]
    found = {entry.name: _images_below(entry) for entry in entries if entry.is_dir()}
    remedy = "Give a folder of images, or a folder with one folder of images a class (PNG, JPEG, WebP or BMP)."
    if loose and any(found.values()):
        raise DataError(f"{len(loose)} images lie beside class folders.", where=str(folder), remedy=remedy)
    if not loose and not any(found.values()):
        raise DataError("the folder has no images.", where=str(folder), remedy=remedy)
    name = folder.name or str(folder.resolve())
    if loose:
        return Source(name, "file", _resolved(loose), decode.decode_file)
    for class_name, files in found.items():
        if not files:
            raise DataError(
                f"class folder {class_name!r} has no images.",
                where=str(folder / class_name),
                remedy="Add images of this class, or remove the folder.",
            )
    if classes is None and len(found) > 1 and {class_name.lower() for class_name in found} <= SPLITS:
        raise DataError(
            f"the folders {', '.join(found)} look like splits, not classes.",
            where=str(folder),
            remedy=f"Give one of them, such as {folder / next(iter(found))}.",
        )
    names = tuple(found) if classes is None else tuple(classes)
    for class_name in found:
        if class_name not in names:
            raise DataError(
                f"class folder {class_name!r} is none of the classes {', '.join(names)}.",
                where=str(folder / class_name),
                remedy="Correct the class names, or remove the folder.",
            )
    labels = [names.index(class_name) for class_name, files in found.items() for _ in files]
    paths = _resolved([path for files in found.values() for path in files])
    return Source(name, "file", paths, decode.decode_file, np.array(labels, dtype=np.int64), names)


def _resolved(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Where files really are, so that one file has one place; each folder is followed once, not for each file in it."""
    folders = {folder: folder.resolve() for folder in dict.fromkeys(path.parent for path in paths)}
    return tuple(path.resolve() if path.is_symlink() else folders[path.parent] / path.name for path in paths)


def from_file(path: Path) -> Source:
    """One image file."""
    return Source(path.name, "file", (path.resolve(),), decode.decode_file)


def from_builtin(split: str) -> Source:
    """The built-in hands: "train", "test" or "calibration". What was drawn is kept, at most 2520 images (124 MB).

    Raises:
        DataError: there is no such split.
    """
    drawn, labels = hands.builtin(split)

    @lru_cache(DRAWN_IMAGES_KEPT)
    def draw(index: int) -> decode.Pixels:
        image = drawn[index]
        image.flags.writeable = False
        return image

    def read(index: int, channels: int) -> decode.Pixels:
        return decode.with_channels(draw(index), channels)

    name = f"builtin:{split}"
    return Source(name, name, tuple(range(len(drawn))), read, labels, hands.CLASS_NAMES)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in IGNORED_FOLDERS


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in decode.UNSUPPORTED_SUFFIXES and path.is_file():
        # Passing it over would quietly measure on fewer images than the user gave.
        raise DataError(
            f"{suffix[1:]} images are not read.", where=str(path), remedy="Convert it to PNG, or remove it."
        )
    # Only regular files: opening a pipe or a device would wait for ever.
    return suffix in decode.SUFFIXES and path.is_file()


def _images_below(folder: Path) -> list[Path]:
    """Every image of a class, in the order of the paths; links to folders inside are not followed."""

    def files() -> Iterator[Path]:
        for parent, folders, names in os.walk(folder, onerror=_unreadable):
            folders[:] = [name for name in folders if not _is_hidden(name)]
            yield from (Path(parent, name) for name in names if not _is_hidden(name))

    return sorted(path for path in files() if _is_image(path))


def _unreadable(error: OSError) -> None:
    raise DataError(f"cannot read the folder: {error.strerror}.", where=str(error.filename)) from error

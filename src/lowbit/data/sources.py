"""Where images come from, as one `Source`: a list of places and a function that reads one of them.

So images that can be read again are not held in memory, and folders, arrays and the built-in set look alike to their
users. Arrays have rules of their own: `lowbit.data.arrays`.
"""

import dataclasses
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
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
Target = Array | Mapping[str, Array]  # of one sample: an array, or boxes by name (lowbit.data.targets)
Targets = Array | tuple[Target, ...]  # of all samples
Place = Path | int

# Created by archivers beside the real folders.
IGNORED_FOLDERS = frozenset({"__MACOSX"})
SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "calibration", "eval"})
DRAWN_IMAGES_KEPT = 2520


@dataclass(frozen=True, eq=False)
class Source:
    """Images that can be read one by one, in any order.

    Args:
        name: what the user calls them, for messages.
        origin: equal origins and equal places mean the same image.
        places: a file path or an index for each image.
        read: (place, channels) -> the stored array; for files uint8 [height, width, channels].
        labels: int64 [count], or None.
        class_names: in the order of the labels, or None.
        values: "bytes" (0..255), "unit" (0..1) or "model" (already normalized): what the numbers mean.
        layout: "HWC", "CHW" or "HW"; None if the arrays are not images.
        resizable: whether images may have any size and are scaled; others must have the model's size.
        parallel: whether `read` may be called from several threads at once.
        targets: what each image should give, where that is no class number.
        note: what whoever gave them should know of the labels.
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
    targets: Targets | None = None
    note: str = ""

    def where(self, place: Place) -> str:
        """How an error message names one image."""
        return str(place) if isinstance(place, Path) else f"{self.name}, image {place}"

    def pixels(self, place: Place, channels: int = 3) -> decode.Pixels:
        """One image as uint8 [height, width, channels] at its own size; fractions are rounded to 256 levels.

        Raises:
            DataError: unreadable, values out of range, or a model's input instead of an image.
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
                raise DataError(
                    f"values are outside the range 0..{top:g}.", where=self.where(place), remedy="Store uint8."
                )
            stored = np.rint(stored.astype(np.float64) * (255.0 / top)).astype(np.uint8)
        if self.layout == "HW":
            return stored[:, :, None]
        return np.ascontiguousarray(stored.transpose(1, 2, 0)) if self.layout == "CHW" else stored

    def select(self, chosen: Sequence[int]) -> "Source":
        """The same source with only these images."""
        labels = None if self.labels is None else self.labels[np.asarray(chosen, dtype=np.int64)]
        places = tuple(self.places[i] for i in chosen)
        return dataclasses.replace(self, places=places, labels=labels, targets=chosen_of(self.targets, chosen))


def chosen_of(targets: Targets | None, chosen: Sequence[int]) -> Targets | None:
    """The targets of some samples."""
    if targets is None or isinstance(targets, np.ndarray):
        return None if targets is None else targets[np.asarray(chosen, dtype=np.int64)]
    return tuple(targets[index] for index in chosen)


def from_folder(folder: Path, classes: Sequence[str] | None = None) -> Source:
    """A folder of class folders (class index = alphabetical order, or the order of `classes`), or a flat folder.

    Subfolders of a class folder belong to the class. Hidden files, and files that are not images, are ignored.

    Raises:
        DataError: no images, a class folder without any, a folder that `classes` does not name, images beside class
            folders, an image format that lowbit does not read, or a folder of splits.
    """
    entries = _entries(folder)
    loose = [_place(entry, folder.resolve()) for entry in entries if _is_image(entry)]
    class_files = {entry.name: list(_images_below(folder / entry.name)) for entry in entries if os.path.isdir(entry)}
    remedy = "Give a folder of images, or a folder with one folder of images per class (PNG, JPEG, WebP or BMP)."
    if loose and any(class_files.values()):
        raise DataError(f"there are images ({len(loose)}) beside class folders.", where=str(folder), remedy=remedy)
    if not loose and not any(class_files.values()):
        raise DataError("the folder has no images.", where=str(folder), remedy=remedy)
    name = folder.name or str(folder.resolve())
    if loose:
        return Source(name, "file", tuple(loose), decode.decode_file)
    for class_name, files in class_files.items():
        if not files:
            raise DataError(
                f"class folder {class_name!r} has no images.",
                where=str(folder / class_name),
                remedy="Add images of this class, or remove the folder.",
            )
    if classes is None and len(class_files) > 1 and {class_name.lower() for class_name in class_files} <= SPLITS:
        raise DataError(
            f"the folders {', '.join(class_files)} look like splits, not classes.",
            where=str(folder),
            remedy=f"Give one of them, such as {folder / next(iter(class_files))}.",
        )
    names = tuple(class_files) if classes is None else tuple(classes)
    for class_name in class_files:
        if class_name not in names:
            raise DataError(
                f"class folder {class_name!r} is not one of the classes {', '.join(names)}.",
                where=str(folder / class_name),
                remedy="Correct the class names, or remove the folder.",
            )
    labels = [names.index(class_name) for class_name, files in class_files.items() for _ in files]
    paths = tuple(path for files in class_files.values() for path in files)
    return Source(name, "file", paths, decode.decode_file, np.array(labels, dtype=np.int64), names)


def from_file(path: Path) -> Source:
    """One image file."""
    return Source(path.name, "file", (path.resolve(),), decode.decode_file)


def from_builtin(split: str) -> Source:
    """The built-in hands: "train", "test" or "calibration". Drawn images are kept, at most 2520 (124 MB).

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


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name. They know their own type: asking each path took a tenth of a calibration."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not _is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder: {error.strerror}.", where=str(folder)) from error


def _is_image(entry: os.DirEntry[str]) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in decode.UNSUPPORTED_SUFFIXES and _is_file(entry):
        # Ignoring it would silently measure on fewer images than the user gave.
        raise DataError(
            f"{suffix[1:]} images are not supported.", where=entry.path, remedy="Convert it to PNG, or remove it."
        )
    # Only regular files: opening a pipe or a device would block.
    return suffix in decode.SUFFIXES and _is_file(entry)


def _is_file(entry: os.DirEntry[str]) -> bool:
    # An entry's own answer fails on a link that leads to itself.
    return os.path.isfile(entry) if entry.is_symlink() else entry.is_file()


def _place(entry: os.DirEntry[str], folder: Path) -> Path:
    """The real path of a file in `folder`, which is resolved already, so that one file has one place."""
    return Path(entry).resolve() if entry.is_symlink() else folder / entry.name


def _images_below(folder: Path) -> Iterator[Path]:
    """Every image of a class, in the order of the paths; links to folders inside are not followed."""
    real = folder.resolve()
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _images_below(Path(entry))
        elif _is_image(entry):
            yield _place(entry, real)

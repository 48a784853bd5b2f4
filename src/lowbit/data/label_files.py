"""Labels that stand beside the images, in files of their own -> targets of each image.

- COCO JSON: boxes with class numbers, matched by file name. Category ids become places in their sorted list; the ids
  themselves are kept as `ids`.
- A folder of YOLO text files: for each image one of the same name, with `class x y width height` a line, centers and
  sizes as fractions; a polygon after the class counts as the box around it. An image without a file has no boxes.
- A folder of mask images (PNG): for each image one of the same name, whose values or palette indices are classes.
- A .npy file, or a .npz file with `labels`: one for each sample.

Boxes are x0, y0, x1, y1 as fractions of the image. All files are read as untrusted input.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lowbit.data import npz
from lowbit.data.sources import Array, Labels, Target, Targets
from lowbit.data.targets import understood
from lowbit.errors import DataError

LARGEST_BYTES = 1 << 30
LARGEST_TEXT = 16 << 20
MOST_PIXELS = 100_000_000
MOST_CLASSES = 1_000_000_000
MASK_SUFFIXES = (".png", ".bmp")
REMEDY = "Give a COCO .json, a folder of YOLO .txt files or of masks named as the images are, a .npy or a .npz."


def read_labels(path: Path, places: Sequence[object], name: str) -> tuple[Labels | None, Targets | None]:
    """Class numbers, or targets in any other form.

    Args:
        path: what the user named.
        places: of the samples; those of images in files are paths.
        name: of the samples, for messages.

    Raises:
        DataError: unreadable or damaged files, or labels that are not those of the samples.
    """
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        return understood(_array(path), len(places), str(path))
    files = [place for place in places if isinstance(place, Path)]
    if len(files) != len(places):
        raise DataError("these samples are no files that labels could be named after.", where=name, remedy=REMEDY)
    if path.is_dir():
        return None, _of_folder(path, files)
    if path.suffix.lower() == ".json" and path.is_file():
        return None, coco(path, files)
    what = "this is no kind of labels that lowbit reads." if path.exists() else "there is no such file or folder."
    raise DataError(what, where=str(path), remedy=REMEDY)


def coco(path: Path, images: Sequence[Path]) -> Targets:
    """Boxes of each image from a COCO JSON file.

    Raises:
        DataError: not such a file, or an image that it does not name.
    """
    data = _json(path)
    try:
        kinds = sorted({int(each["id"]) for each in data["categories"]})
        np.array(kinds, np.int64)  # raises OverflowError for what is no id
        known = {str(each["file_name"]): (int(each["id"]), each) for each in data["images"]}
        boxes: dict[int, list[tuple[list[float], int, bool]]] = {}
        for each in data["annotations"]:
            box = [float(x) for x in each["bbox"]]
            if len(box) != 4 or not all(map(math.isfinite, box)) or int(each["category_id"]) not in kinds:
                raise ValueError(f"annotation {each.get('id')} has no box of 4 numbers, or no such category")
            boxes.setdefault(int(each["image_id"]), []).append(
                (box, int(each["category_id"]), bool(each.get("iscrowd", 0)))
            )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"this is no COCO file of boxes: {error!r}.", where=str(path), remedy=REMEDY) from error
    by_name = known | {Path(name).name: entry for name, entry in known.items()}
    targets: list[Target] = []
    for image in images:
        if image.name not in by_name:
            raise DataError(f"the image '{image.name}' is not in the file.", where=str(path), remedy=REMEDY)
        number, entry = by_name[image.name]
        targets.append(_coco_target(entry, boxes.get(number, []), kinds, path))
    return tuple(targets)


def _coco_target(
    entry: Mapping[str, Any], given: Sequence[tuple[list[float], int, bool]], kinds: Sequence[int], path: Path
) -> Target:
    try:
        width, height = float(entry["width"]), float(entry["height"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"image '{entry.get('file_name')}' has no width and height.", where=str(path)) from error
    if not (width > 0 and height > 0):
        raise DataError(f"image '{entry.get('file_name')}' is {width}x{height}.", where=str(path))
    box = np.array([each for each, _, _ in given], np.float64).reshape(-1, 4)
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1) / [width, height, width, height]
    ids = np.array([kind for _, kind, _ in given], np.int64)
    return {
        "boxes": corners,
        "labels": np.searchsorted(np.asarray(kinds), ids),
        "ids": ids,
        "iscrowd": np.array([crowd for _, _, crowd in given], bool),
    }


def _of_folder(folder: Path, images: Sequence[Path]) -> Targets:
    """Boxes or masks of each image, from files of its name."""
    texts = [folder / f"{image.stem}.txt" for image in images]
    if any(text.is_file() for text in texts):
        return tuple(yolo(text) for text in texts)
    return tuple(_mask(folder, image) for image in images)


def yolo(path: Path) -> Target:
    """Boxes of one image from a YOLO text file; none if there is no file.

    Raises:
        DataError: a line that is no class with a box or a polygon.
    """
    lines = _text(path).splitlines() if path.is_file() else []
    boxes, classes = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            kind, *numbers = (float(word) for word in line.split())
        except ValueError:
            kind, numbers = math.nan, []
        polygon = len(numbers) >= 6 and len(numbers) % 2 == 0
        finite = all(map(math.isfinite, (kind, *numbers)))
        if not finite or not 0 <= kind <= MOST_CLASSES or kind != int(kind) or not (polygon or len(numbers) == 4):
            raise DataError(
                f"'{line.strip()[:60]}' is not `class x y width height`.", where=f"{path}, line {number}", remedy=REMEDY
            )
        if polygon:
            xs, ys = numbers[::2], numbers[1::2]
            boxes.append([min(xs), min(ys), max(xs), max(ys)])
        else:
            x, y, width, height = numbers
            boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        classes.append(int(kind))
    return {"boxes": np.array(boxes, np.float64).reshape(-1, 4), "labels": np.array(classes, np.int64)}


def _mask(folder: Path, image: Path) -> Array:
    """Classes of one image's pixels [height, width]."""
    path = next((path for suffix in MASK_SUFFIXES if (path := folder / f"{image.stem}{suffix}").is_file()), None)
    if path is None:
        raise DataError(f"there is no mask or text file for image '{image.name}'.", where=str(folder), remedy=REMEDY)
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise DataError("the mask has more than 100 million pixels.", where=str(path))
            if picture.mode not in ("1", "L", "P", "I", "I;16"):
                what = f"a mask has one class number for each pixel, this is a picture of mode {picture.mode}."
                raise DataError(what, where=str(path), remedy="Save class numbers as gray values or palette indices.")
            return np.asarray(picture).astype(np.int32)
    except MemoryError as error:  # a compressed note in it, say, besides its pixels
        raise DataError("there is not enough memory for the mask.", where=str(path)) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"cannot read the mask: {error}.", where=str(path)) from error


def _array(path: Path) -> Array:
    if path.suffix.lower() == ".npz":
        arrays = npz.read(path, npz.LABEL_KEYS)
        found = next((arrays[key] for key in npz.LABEL_KEYS if key in arrays), None)
        if found is None:
            raise DataError("there is no array 'labels' or 'y'.", where=str(path), remedy=REMEDY)
        return found
    return npz.read_npy(path)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(_text(path, LARGEST_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataError(f"this is no JSON file: {error}.", where=str(path), remedy=REMEDY) from error
    if not isinstance(data, Mapping):
        raise DataError("this is no COCO file of boxes.", where=str(path), remedy=REMEDY)
    return data


def _text(path: Path, largest: int = LARGEST_TEXT) -> str:
    try:
        if path.stat().st_size > largest:
            raise DataError(f"the file has more than {largest >> 20} MiB.", where=str(path), remedy=REMEDY)
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the labels: {error}.", where=str(path), remedy=REMEDY) from error

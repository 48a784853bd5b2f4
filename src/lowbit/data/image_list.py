"""A list of image files with labels -> `Source`: how subsets of large collections come, whatever classes lack images.

A CSV file has one image a line: its path, relative to the list's folder, then its label if there are labels; or columns
in any order under a header (`image` or `path`, `label` or `class`). A text file has `path label` a line. Labels are
class numbers from 0, or class names, which count in the order of `classes`, or else in alphabetical order.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lowbit.data import decode
from lowbit.data.sources import Source
from lowbit.errors import DataError

SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".lst"})
PATH_COLUMNS = ("image", "path", "file", "filename", "image_path", "name")
LABEL_COLUMNS = ("label", "class", "target", "class_id", "y")
LARGEST_BYTES = 256 << 20
REMEDY = "Write one image a line: its path, relative to the list, and its label if there are labels."

Row = tuple[int, str, str | None]  # line, path, label


def from_list(path: Path, classes: Sequence[str] | None = None) -> Source:
    """The images of a CSV or text file, in its order.

    Raises:
        DataError: the list cannot be read or is empty, a file that is missing or no image, or labels that are numbers
            here and names there, negative, or missing on some lines only.
    """
    rows = list(_rows(path))
    if not rows:
        raise DataError("the list names no images.", where=str(path), remedy=REMEDY)
    places = []
    for line, text, label in rows:
        place = path.parent / text
        where = f"{path}, line {line}"
        if place.suffix.lower() not in decode.SUFFIXES:
            raise DataError(f"'{text}' is no PNG, JPEG, WebP or BMP file.", where=where, remedy=REMEDY)
        if not place.is_file():
            raise DataError(f"there is no file '{text}'.", where=where, remedy=REMEDY)
        if (label is None) != (rows[0][2] is None):
            raise DataError("some images have a label and some have none.", where=where, remedy=REMEDY)
        places.append(place.resolve())
    if rows[0][2] is None:
        return Source(path.name, "file", tuple(places), decode.decode_file)
    labels, names = _labels(path, [(line, str(label)) for line, _, label in rows], classes)
    return Source(path.name, "file", tuple(places), decode.decode_file, labels, names)


def _rows(path: Path) -> Iterator[Row]:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise DataError(f"the list has more than {LARGEST_BYTES >> 20} MiB.", where=str(path), remedy=REMEDY)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list: {error}.", where=str(path), remedy=REMEDY) from error
    if "\0" in text:
        raise DataError("this is no text file.", where=str(path), remedy=REMEDY)
    return _table_rows(text, path) if path.suffix.lower() in (".csv", ".tsv") else _text_rows(text)


def _text_rows(text: str) -> Iterator[Row]:
    for line, row in enumerate(text.splitlines(), 1):
        parts = row.rsplit(maxsplit=1)
        if not parts or row.lstrip().startswith("#"):
            continue
        # A path may have spaces, and a line no label.
        whole = len(parts) == 1 or Path(parts[1]).suffix.lower() in decode.SUFFIXES
        yield (line, row.strip(), None) if whole else (line, parts[0].strip(), parts[1])


def _table_rows(text: str, path: Path) -> Iterator[Row]:
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    try:
        table = [(at, row) for at, row in enumerate(csv.reader(io.StringIO(text), delimiter=delimiter), 1) if any(row)]
    except csv.Error as error:
        raise DataError(f"cannot read the list: {error}.", where=str(path), remedy=REMEDY) from error
    columns = [name.strip().lower() for name in table[0][1]] if table else []
    image = next((columns.index(name) for name in PATH_COLUMNS if name in columns), None)
    if image is None:  # no header
        image, label = 0, 1 if len(columns) > 1 else None
    else:
        table = table[1:]
        label = next((columns.index(name) for name in LABEL_COLUMNS if name in columns), None)
    for line, row in table:
        if len(row) <= max(image, label or 0):
            raise DataError(f"the line has {len(row)} columns.", where=f"{path}, line {line}", remedy=REMEDY)
        given = None if label is None else row[label].strip()
        yield line, row[image].strip(), given or None


def _labels(
    path: Path, given: Sequence[tuple[int, str]], classes: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Class numbers, and the names of the classes where labels are names."""
    if all(label.isascii() and label.isdigit() and len(label) < 10 for _, label in given):
        return np.array([int(label) for _, label in given], np.int64), None
    names = tuple(classes) if classes is not None else tuple(sorted({label for _, label in given}))
    for line, label in given:
        if label not in names or label.lstrip("-").isdigit():
            known = "numbers and names are mixed" if classes is None else f"the classes are {', '.join(names[:10])}"
            raise DataError(f"label '{label}': {known}.", where=f"{path}, line {line}", remedy=REMEDY)
    return np.array([names.index(label) for _, label in given], np.int64), names

"""Dicts, tuples, arrays and .npz files -> `Samples`: whose array goes to which input, and which is the label.

An array of an input's own rank has a batch dimension, and each of its rows is a sample; one dimension less is a sample
without it; one more, a sample along the first axis for an input that has no batch dimension.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from lowbit.data import npz
from lowbit.data.arrays import GIVEN
from lowbit.data.iterables import KEEP_BYTES, in_order
from lowbit.data.samples import Item, Samples, samples_of
from lowbit.data.targets import understood
from lowbit.errors import DataError
from lowbit.graph.model import ValueInfo

Array = npt.NDArray[Any]
Fitted = tuple[Item, object | None, bool]  # arrays, label, and whether they came with a batch dimension
LABEL_KEYS = ("labels", "label", "y", "targets", "target")


def from_named(arrays: Mapping[str, object], inputs: Sequence[ValueInfo], *, name: str, origin: object) -> Samples:
    """All samples at once: one array for each input, with as many samples along the first axis, and labels if any.

    Raises:
        DataError: an input without an array, an array for no input, or shapes, types or values that do not fit.
    """
    named, labels = _by_input(arrays, inputs, name)
    ranks = {info.name: len(info.shape) for info in inputs}
    whole = {key for key, x in named.items() if x.ndim == ranks[key] + 1}
    counts = {key: len(x) if x.ndim else 0 for key, x in named.items()}
    if len(set(counts.values())) != 1:
        said = ", ".join(f"{key!r} has {count}" for key, count in counts.items())
        raise DataError(f"the inputs have different numbers of samples: {said}.", where=name)
    for info in inputs:
        shape = named[info.name].shape[1:] if info.name in whole else named[info.name].shape
        _check(named[info.name], shape, info, name)
    count = next(iter(counts.values()))
    if count == 0:
        raise DataError("there are no samples.", where=name, remedy="Give at least one.")
    if not whole:
        shapes = [{key: x.shape for key, x in named.items()}]
        samples = samples_of([named], shapes, inputs, name=name, origin=(origin, "rows"))
        samples = dataclasses.replace(samples, items_are_runs=False)
    else:

        def item(number: int) -> Item:
            return {key: x[number] if key in whole else x[number : number + 1] for key, x in named.items()}

        shapes = [{key: x.shape for key, x in item(number).items()} for number in range(count)]
        samples = samples_of(item, shapes, inputs, name=name, origin=(origin, "items"))
    return _with_labels(samples, labels)


def from_items(items: Iterable[object], inputs: Sequence[ValueInfo], *, name: str = GIVEN) -> Samples:
    """Items one by one, read once and kept, at most 1 GiB: dicts by input name, tuples in input order, or arrays.

    A label follows as another entry of the tuple, as the second of a pair, or in the dict as `labels` or `y`. What a
    data loader gives has a row for each of its samples.

    Raises:
        DataError: as `from_named`; some items with labels and some without; more than can be kept.
    """
    kept: list[Item] = []

    def reading() -> Iterator[Fitted]:
        size = 0
        for number, given in enumerate(in_order(items)):
            where = f"{name}, item {number}"
            item, label, batched = _fitted(_named(given, inputs, where), inputs, where)
            kept.append({key: x.copy() for key, x in item.items()})  # a loader may use one buffer for every item
            size += sum(x.nbytes for x in item.values())
            if size > KEEP_BYTES:
                raise DataError(
                    f"items are kept in memory, at most {KEEP_BYTES >> 20} MiB of them.",
                    where=name,
                    remedy="Give a folder of .npz files, an uncompressed .npz, or fewer items.",
                )
            yield kept[-1], label, batched

    shapes, labels = _surveyed(reading(), name)
    samples = samples_of(kept, shapes, inputs, name=name, origin=("object", id(items)))
    return _with_labels(samples, labels)


def from_npz(path: Path, inputs: Sequence[ValueInfo]) -> Samples:
    """One .npz file with an array for each input, under its name, and `labels` or `y` if there are any.

    Raises:
        DataError: as `npz.read` and `from_named`.
    """
    return from_named(npz.read(path), inputs, name=path.name, origin=("npz", str(path.resolve())))


def from_npz_folder(folder: Path, files: Sequence[Path], inputs: Sequence[ValueInfo]) -> Samples:
    """A folder of .npz files, an item each, in the order of their names; read again whenever they are needed.

    Raises:
        DataError: as `npz.read` and `from_items`.
    """

    def read(number: int) -> Fitted:
        return _fitted(npz.read(files[number]), inputs, str(files[number]))

    name = folder.name or str(folder.resolve())
    shapes, labels = _surveyed(map(read, range(len(files))), name)
    origin = ("npz folder", str(folder.resolve()))
    return _with_labels(samples_of(lambda number: read(number)[0], shapes, inputs, name=name, origin=origin), labels)


def is_named(source: object) -> bool:
    """Whether a source is a dict of arrays, or begins with a dict: then it says itself what goes where."""
    if isinstance(source, Mapping):
        return True
    indexed = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if isinstance(source, np.ndarray | str) or not indexed or not len(cast(Any, source)):
        return False
    first = cast(Any, source)[0]
    return isinstance(first, Mapping) or (isinstance(first, tuple) and bool(first) and isinstance(first[0], Mapping))


def _named(item: object, inputs: Sequence[ValueInfo], where: str) -> dict[str, object]:
    """The arrays of one item by input name, with its label, if it has one, as `labels`."""
    label: dict[str, object] = {}
    names = [info.name for info in inputs]
    if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Mapping | tuple | list):
        label, item = {LABEL_KEYS[0]: item[1]}, item[0]
    if isinstance(item, Mapping):
        return {**{str(key): value for key, value in item.items()}, **label}
    if isinstance(item, tuple | list) and not (len(names) == 1 and np.ndim(cast(Any, item[0])) == 0):
        if len(item) == len(names) + 1 and not label:
            label, item = {LABEL_KEYS[0]: item[-1]}, item[:-1]
        if len(item) != len(names):
            raise DataError(
                f"an item has {len(item)} arrays, the model {len(names)} inputs ({', '.join(names)}).", where=where
            )
        return {**dict(zip(names, item, strict=True)), **label}
    if len(names) != 1:
        raise DataError(
            f"an item is one {type(item).__name__}, the model has {len(names)} inputs ({', '.join(names)}).",
            where=where,
            remedy="Give dicts of arrays by input name, or tuples in the order of the inputs.",
        )
    return {names[0]: item, **label}


def _fitted(arrays: Mapping[str, object], inputs: Sequence[ValueInfo], where: str) -> Fitted:
    """One item's arrays by input name, as they fit the inputs, with a batch dimension where it lacks one; its label."""
    named, label = _by_input(arrays, inputs, where)
    item = {}
    batched = any(named[info.name].ndim == len(info.shape) for info in inputs)
    for info in inputs:
        x = named[info.name]
        item[info.name] = x = x[None] if x.ndim == len(info.shape) - 1 else x
        _check(x, x.shape, info, where)
    return item, label, batched


def _surveyed(items: Iterable[Fitted], name: str) -> tuple[list[dict[str, tuple[int, ...]]], list[object] | None]:
    """Shapes of all items, and their labels if they have any: one for each row where there are as many."""
    shapes: list[dict[str, tuple[int, ...]]] = []
    labels: list[object] = []
    for number, (item, label, batched) in enumerate(items):
        if number and (label is None) != (not labels):
            raise DataError("some items have labels and some have none.", where=f"{name}, item {number}")
        shapes.append({key: x.shape for key, x in item.items()})
        if label is not None:
            rows = {shape[0] if shape else 0 for shape in shapes[-1].values()} if batched else set()
            each = not isinstance(label, Mapping) and np.ndim(cast(Any, label)) > 0 and rows == {len(cast(Any, label))}
            labels += list(cast(Any, label)) if each else [label]
    if not shapes:
        raise DataError("there are no items.", where=name, remedy="Give at least one.")
    return shapes, labels or None


def _by_input(
    arrays: Mapping[str, object], inputs: Sequence[ValueInfo], where: str
) -> tuple[dict[str, Array], object | None]:
    """An array for each input, and the labels; where there is one of each, names do not matter."""
    names = [info.name for info in inputs]
    rest = {key: value for key, value in arrays.items() if key not in names}
    label = next((rest.pop(key) for key in LABEL_KEYS if key in rest), None)
    given = {key: arrays[key] for key in names if key in arrays}
    if len(names) == len(rest) == 1 and not given:
        given, rest = {names[0]: next(iter(rest.values()))}, {}
    missing = [key for key in names if key not in given]
    if missing or rest:
        said = f"there is no array for {', '.join(map(repr, missing))}" if missing else "some arrays are for no input"
        held, wanted = (", ".join(map(repr, each)) or "nothing" for each in (arrays, names))
        raise DataError(
            f"{said}: there are {held}, and the model takes {wanted}.",
            where=where,
            remedy="Name arrays as the model's inputs are named; labels are called 'labels' or 'y'.",
        )
    return {key: _array(value, f"{where}, {key!r}") for key, value in given.items()}, label


def _array(value: object, where: str) -> Array:
    try:
        array = np.asarray(value)
    except Exception as error:  # other libraries' arrays raise all kinds of errors
        raise DataError(f"not an array: {error}.", where=where, remedy="Give arrays of numbers.") from error
    if array.dtype.kind not in "iufb" or array.dtype.itemsize > 8:
        raise DataError(f"a {type(value).__name__} of dtype {array.dtype} is no array of numbers.", where=where)
    return array


def _check(x: Array, shape: Sequence[int], info: ValueInfo, where: str) -> None:
    """Refuse an array that an input cannot take, whatever the batch."""
    wanted = info.shape
    if len(shape) != len(wanted) or any(
        isinstance(dim, int) and dim != extent for dim, extent in zip(wanted[1:], shape[1:], strict=True)
    ):
        raise DataError(
            f"an array of shape {list(x.shape)} was given for {info.name!r}, which takes {_text(wanted)}.", where=where
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError(f"some values of {info.name!r} are NaN or infinite.", where=where)


def _text(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join('?' if dim is None else str(dim) for dim in shape)}]"


def _with_labels(samples: Samples, labels: object | None) -> Samples:
    if labels is None:
        return samples
    count = len(cast(Any, labels)) if hasattr(labels, "__len__") else 1
    if count == len({item for item, _ in samples.places}) < samples.count:
        samples = samples.as_given()  # one label for each item: rows are not samples
    classes, targets = understood(labels, samples.count, samples.name)
    return dataclasses.replace(samples, labels=classes, targets=targets)

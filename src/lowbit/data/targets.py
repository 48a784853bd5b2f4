"""What samples should give, in any form: class numbers, or targets such as values, maps, sequences and boxes.

Class numbers are one integer from 0 on for each sample, and every other form is a target: an array for each sample,
or the boxes of an image as `{"boxes": [count, 4], "labels": [count]}`. What a target means is the task's affair.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from lowbit.data.sources import Labels, Target, Targets
from lowbit.errors import DataError

REMEDY = "Give a class number from 0, or an array of any shape, for each of them."


def understood(given: object, count: int, name: str) -> tuple[Labels | None, Targets | None]:
    """Labels as class numbers int64 [count] or, in any other form, as targets.

    Args:
        given: an array [count, ...], or a sequence of arrays, numbers or boxes whose shapes may differ.
        count: number of samples.
        name: for messages.

    Raises:
        DataError: not one for each sample, no numbers, or class numbers below 0.
    """
    array = None if _is_ragged(given) else np.asarray(given)
    if array is None:
        targets = tuple(as_target(each, f"{name}, label {index}") for index, each in enumerate(cast(Any, given)))
        if len(targets) != count:
            raise DataError(f"there are {len(targets)} labels for {count} samples.", where=name, remedy=REMEDY)
        return None, targets
    kinds = "iuf" if array.size == count else "iufb"
    if array.ndim == 0 or len(array) != count or array.dtype.kind not in kinds:
        raise DataError(
            f"labels are {array.dtype} {array.shape}, expected one for each of {count} samples.",
            where=name,
            remedy=REMEDY,
        )
    if array.size != count or array.ndim > 2 or array.dtype.kind == "f":
        return None, array
    classes = array.reshape(count)
    if count and not 0 <= int(classes.min()) <= int(classes.max()) < 1 << 31:
        raise DataError(
            f"labels range from {classes.min()} to {classes.max()}.",
            where=name,
            remedy="Count classes from 0; values to be predicted must be floats.",
        )
    return classes.astype(np.int64), None


def as_target(given: object, where: str) -> Target:
    """One sample's target as an array, or boxes by name.

    Raises:
        DataError: no numbers.
    """
    if isinstance(given, Mapping):
        return {str(key): _numbers(value, where) for key, value in given.items()}
    return _numbers(given, where)


def _is_ragged(given: object) -> bool:
    """Whether this is a sequence of boxes, or of arrays whose shapes differ."""
    if isinstance(given, np.ndarray) or not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return False
    if any(isinstance(each, Mapping) for each in given):
        return True
    return len({np.shape(np.asarray(each)) for each in given}) > 1


def _numbers(given: object, where: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(given)
    except Exception as error:  # other libraries' arrays raise all kinds of errors
        raise DataError(f"the label is no array: {error}.", where=where, remedy=REMEDY) from error
    if array.dtype.kind not in "iufb" or array.dtype.itemsize > 8:
        raise DataError(f"the label {given!r:.60} is no number.", where=where, remedy=REMEDY)
    return array

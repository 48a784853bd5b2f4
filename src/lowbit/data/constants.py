"""Inputs that are the same for every sample, such as a mask of ones, and numbers in the type that an input has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.data import npz
from lowbit.errors import DataError
from lowbit.graph.model import ValueInfo

Array = npt.NDArray[Any]
FILLS = {"ones": 1.0, "zeros": 0.0}
REMEDY = "Write NAME=ones, NAME=zeros, NAME=0.5 or NAME=array.npy, with the name of an input."


@dataclass(frozen=True, eq=False)
class Constant:
    """One input's value for every sample.

    Args:
        array: [1, ...], a sample's row; or the input as a whole.
        whole: whether the input has no batch dimension.
    """

    array: Array
    whole: bool

    def repeated(self, samples: int) -> Array:
        """As a run of so many samples takes it."""
        return self.array if self.whole or samples == 1 else np.repeat(self.array, samples, axis=0)


def constant(value: float | Array, info: ValueInfo, sizes: Mapping[str, int], *, whole: bool) -> Constant:
    """A value for an input: a number that fills it, or an array of its shape, with or without the batch dimension.

    Args:
        value: the number or the array.
        info: name, shape and type of the input.
        sizes: of named dimensions, as the samples have them.
        whole: whether the input has no batch dimension.

    Raises:
        DataError: a number for an input of unknown size, an array of another shape, or values beyond its type.
    """
    where = f"input {info.name!r}"
    wanted = [sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in info.shape]
    if not whole and wanted:
        wanted[0] = 1
    if np.ndim(value) == 0 and not (isinstance(value, np.ndarray) and not wanted):
        if not all(isinstance(dim, int) for dim in wanted):
            raise DataError(
                f"a number cannot fill it: its shape is {list(info.shape)}, of which not all is known.",
                where=where,
                remedy="Give an array: NAME=array.npy.",
            )
        value = np.full([int(dim or 0) for dim in wanted], value)
    array = np.asarray(value)
    if array.ndim == len(wanted) - 1 and not whole:
        array = array[None]
    if array.ndim != len(wanted) or any(
        isinstance(d, int) and d != n for d, n in zip(wanted, array.shape, strict=True)
    ):
        raise DataError(f"an array of shape {list(array.shape)} was given, it takes {list(info.shape)}.", where=where)
    return Constant(np.asarray(of_type(array, info.dtype, lambda: where), order="C"), whole)


def parse_feed(text: str) -> tuple[str, float | Array]:
    """`NAME=ones`, `NAME=zeros`, `NAME=0.5` or `NAME=array.npy` -> the name and the value.

    Raises:
        DataError: another form, or a file that is no array of numbers.
    """
    name, equals, value = text.rpartition("=")
    if not equals or not name or not value:
        raise DataError(f"--feed '{text}' is not NAME=VALUE.", remedy=REMEDY)
    if value in FILLS:
        return name, FILLS[value]
    if value.endswith(".npy"):
        return name, npz.read_npy(Path(value))
    try:
        return name, float(value)
    except ValueError as error:
        raise DataError(f"--feed '{text}': '{value}' is no number.", remedy=REMEDY) from error


def of_type(x: Array, dtype: np.dtype[Any], where: Callable[[], str]) -> Array:
    """The same numbers in the type of an input: floats rounded to it, whole numbers exactly.

    Raises:
        DataError: an integer or boolean input, and numbers that it cannot hold.
    """
    if x.dtype == dtype or dtype.kind not in "iub":
        return x.astype(dtype, copy=False)
    with np.errstate(invalid="ignore"):
        same = x.astype(dtype)
    if not np.array_equal(same, x):
        raise DataError(
            f"the model takes {dtype}, and {x.dtype} values from {x.min():g} to {x.max():g} are none.",
            where=where(),
            remedy=f"Give {dtype} arrays: inputs of this type pass through as they are.",
        )
    return same

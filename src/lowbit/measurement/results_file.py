"""results.json read back into the values that it was written from, every field checked against its annotation."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lowbit.errors import DataError
from lowbit.measurement.results import VERSION, Comparison

Value = TypeVar("Value")


def read_results(path: Path | str) -> Comparison:
    """Read a results.json; see `parse_results`.

    >>> comparison = lowbit.measure("model.onnx", "test", runs=0)
    >>> Path("results.json").write_text(comparison.to_json()) > 0
    True
    >>> lowbit.read_results("results.json") == comparison
    True
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}.", where=str(path), remedy="Name a results.json.") from error
    return parse_results(text, where=str(path))


def parse_results(text: str, *, where: str = "results.json") -> Comparison:
    """What `Comparison.to_json` wrote; unknown keys are skipped.

    Raises:
        DataError: not a results file, or one of another version.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("lowbit_results") != VERSION:
            raise ValueError(f"`lowbit_results` must be {VERSION}")
        return build(Comparison, data)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        remedy = "Write it again with `lowbit compare`."
        raise DataError(f"is not a results file of this version: {error}.", where=where, remedy=remedy) from error


def build(kind: type[Value], data: object) -> Value:
    """`data` from JSON as the dataclass `kind`, every field checked against its annotation.

    Raises:
        TypeError, ValueError, OverflowError: it is not one.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(data, dict):
        raise TypeError(f"{kind.__name__} must be an object")
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: _read(hints[name], data[name], f"{kind.__name__}.{name}") for name in names if name in data})


def _read(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - JSON has no narrower type
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _read(next(arm for arm in inner if arm is not type(None)), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(inner[0], item, where) for item in value)
    if origin is Mapping and isinstance(value, dict):
        return {key: _read(inner[1], item, where) for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):  # which Python reads, and JSON does not have
            raise ValueError(f"{where} is no finite number")
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not isinstance(value, bool):
        return value
    raise TypeError(f"{where} has the wrong type")

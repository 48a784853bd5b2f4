"""Dataclasses read back from JSON, each field checked against its annotation: files may be damaged, or a stranger's."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


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
    if isinstance(hint, type) and isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise TypeError(f"{where} has the wrong type")

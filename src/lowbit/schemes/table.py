"""Every scheme by name, as it stands in the JSON of a plan. A new one is a file beside this and a row here."""

import dataclasses
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from lowbit.errors import SchemeError
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.codes import Scheme
from lowbit.schemes.linear import Linear

SCHEMES: dict[str, type[Any]] = {"linear": Linear, "cluster": Clusters}


def scheme_to_json(scheme: Scheme) -> dict[str, Any]:
    """Plain data for `scheme_from_json`: the hyper-parameters, and the scheme's row as `kind`."""
    kind = next(kind for kind, row in SCHEMES.items() if type(scheme) is row)
    return {"kind": kind, **{field.name: getattr(scheme, field.name) for field in dataclasses.fields(SCHEMES[kind])}}


def scheme_from_json(data: Mapping[str, Any]) -> Scheme:
    """The scheme that `scheme_to_json` described.

    Raises:
        SchemeError: unknown kind or field, or impossible hyper-parameters; `data` may come from a hostile file.
    """
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in SCHEMES:
        raise SchemeError(f"unknown scheme {kind!r}.", remedy=f"Known are {', '.join(SCHEMES)}.")
    given = {key: value for key, value in data.items() if key != "kind"}
    fields = {field.name: field for field in dataclasses.fields(SCHEMES[kind])}
    for key, value in given.items():
        if key not in fields or not _is_of(value, fields[key].type):
            raise SchemeError(f"a {kind} scheme has no {key} = {value!r}.")
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in given]
    if missing:
        raise SchemeError(f"a {kind} scheme needs {', '.join(missing)}.")
    scheme: Scheme = SCHEMES[kind](**given)
    return scheme


def _is_of(value: object, kind: Any) -> bool:  # noqa: ANN401 - a type, a union or a literal
    """Whether a value is of the type of a field; True, an int to Python, is no number of bits."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(kind, UnionType):
        return any(_is_of(value, part) for part in get_args(kind))
    return type(value) is kind

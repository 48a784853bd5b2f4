"""Every scheme by name. A new one is a file beside this and a row here."""

from collections.abc import Mapping
from typing import Any

from lowbit.errors import SchemeError
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.linear import Linear

Scheme = Linear | Clusters

SCHEMES: dict[str, type[Linear] | type[Clusters]] = {"linear": Linear, "cluster": Clusters}


def scheme_from_json(data: Mapping[str, Any]) -> Scheme:
    """The scheme that `to_json` described.

    Raises:
        SchemeError: unknown kind or field, or impossible hyper-parameters; `data` may come from a hostile file.
    """
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in SCHEMES:
        raise SchemeError(f"unknown scheme {kind!r}.", remedy=f"Known are {', '.join(SCHEMES)}.")
    fields = {key: value for key, value in data.items() if key != "kind"}
    known = SCHEMES[kind].__dataclass_fields__
    types: dict[str, type | tuple[type, ...]] = {"bits": int, "per": str, "group_size": (int, type(None))}
    for key, value in fields.items():
        expected = types.get(key, bool)
        # bool is an int to Python, and True bits are nobody's intention
        if key not in known or not isinstance(value, expected) or (expected is not bool and isinstance(value, bool)):
            raise SchemeError(f"a {kind} scheme has no {key} = {value!r}.")
    if "bits" not in fields:
        raise SchemeError(f"a {kind} scheme needs its bits.")
    return SCHEMES[kind](**fields)

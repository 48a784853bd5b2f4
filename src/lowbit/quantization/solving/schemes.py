"""Every kind of scheme: its class, and how the codes of a layer are chosen. A new scheme is a file and a row here.

A scheme brings what does not depend on layers: how a tensor is encoded, how its codes are decoded by numpy and by the
nodes of a file, how many bytes that takes (`lowbit.schemes`). Its solver is told a layer's problem.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

from lowbit.errors import SchemeError
from lowbit.graph.ops import Layer
from lowbit.quantization.solving.clusters import solve_clusters, solve_integer_clusters
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.linear import solve_linear
from lowbit.quantization.solving.problem import Problem
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.codes import Codes, Scheme
from lowbit.schemes.integer_clusters import IntegerClusters
from lowbit.schemes.linear import Linear


class Solution(Protocol):
    """What a solver gives."""

    def to_codes(self, layer: Layer, scheme: Any) -> Codes:  # noqa: ANN401 - the scheme that was solved for
        """The codes of the layer's weight, in its stored shape."""
        ...


@dataclass(frozen=True)
class SchemeRow:
    """A row of `SCHEMES`.

    Attributes:
        scheme: the class of the scheme.
        solve: chooses grid and codes for a problem; None encodes the re-fitted weights as they are.
        try_plain: whether plain codes of the re-fitted weights are tried too; not where encoding is what takes time.
    """

    scheme: type[Any]
    solve: Callable[[Problem, Any, Effort], Solution] | None = None
    try_plain: bool = True


SCHEMES: dict[str, SchemeRow] = {
    "linear": SchemeRow(Linear, solve_linear),
    "cluster": SchemeRow(Clusters, solve_clusters, try_plain=False),  # the solver begins from k-means anyway
    "icluster": SchemeRow(IntegerClusters, solve_integer_clusters, try_plain=False),
}


def row_of(scheme: Scheme) -> SchemeRow:
    """The row of a scheme's class.

    Raises:
        KeyError: the class has none.
    """
    for row in SCHEMES.values():
        if type(scheme) is row.scheme:
            return row
    raise KeyError(f"no row of SCHEMES has the class {type(scheme).__name__}")


def scheme_to_json(scheme: Scheme) -> dict[str, Any]:
    """A scheme as plain data: its kind, a name in `SCHEMES`, and its hyper-parameters."""
    kind = next(name for name, row in SCHEMES.items() if type(scheme) is row.scheme)
    return {"kind": kind, **asdict(scheme)}  # type: ignore[call-overload]


def scheme_from_json(data: Mapping[str, Any]) -> Scheme:
    """The scheme that `scheme_to_json` described.

    Raises:
        SchemeError: unknown kind or field, or impossible hyper-parameters; `data` may come from a hostile file.
    """
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in SCHEMES:
        raise SchemeError(f"unknown scheme {kind!r}.", remedy=f"Known are {', '.join(SCHEMES)}.")
    scheme = SCHEMES[kind].scheme
    types = get_type_hints(scheme)
    values = {key: value for key, value in data.items() if key != "kind"}
    for key, value in values.items():
        if key not in types or not is_of_type(value, types[key]):
            raise SchemeError(f"a {kind} scheme has no {key} = {value!r}.")
    missing = [part.name for part in fields(scheme) if part.default is MISSING and part.name not in values]
    if missing:
        raise SchemeError(f"a {kind} scheme needs {', '.join(missing)}.")
    read: Scheme = scheme(**values)
    return read


def is_of_type(value: object, wanted: Any) -> bool:  # noqa: ANN401 - a type, in any of its forms
    """Whether a value is of a type; True is no int, though Python thinks so."""
    choices = get_args(wanted)
    if get_origin(wanted) is Literal:
        return value in choices
    return any(is_of_type(value, choice) for choice in choices) if choices else type(value) is wanted

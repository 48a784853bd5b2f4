"""Every kind of scheme: its class, and how the codes of a layer are chosen. A new scheme is a file and a row here.

A scheme brings what does not depend on layers: how a tensor is encoded, how its codes are decoded by numpy and by the
nodes of a file, how many bytes that takes (`lowbit.schemes`). Its solver is told a layer's problem.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lowbit.graph.ops import Layer
from lowbit.quantization.solving.clusters import solve_clusters
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.gptq import Problem
from lowbit.quantization.solving.linear import solve_linear
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.codes import Codes
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
}


def row_of(scheme: object) -> SchemeRow:
    """The row of a scheme's class.

    Raises:
        KeyError: the class has none.
    """
    for row in SCHEMES.values():
        if type(scheme) is row.scheme:
            return row
    raise KeyError(f"no row of SCHEMES has the class {type(scheme).__name__}")

"""How one node computes, and what its readers do."""

from collections.abc import Mapping
from dataclasses import dataclass

from lowbit.graph.model import Node, Value

EDITED = "edited by hand"


@dataclass(frozen=True)
class NodePlan:
    """How one node computes.

    Attributes:
        node: its unique name.
        op: operator type.
        arithmetic: "integer", "float", or "absorbed" (the saturation of the node before does its work).
        reason: why it computes in float, which node absorbs it, or which runtime computes on its codes in float; empty
            if every runtime computes in integers.
        asked: "integer", or "float" where the recipe or a rule asks for that.
    """

    node: str
    op: str
    arithmetic: str
    reason: str = ""
    asked: str = "integer"


def read_by_integers(value: Value, plans: Mapping[str, NodePlan]) -> bool:
    """Whether a node that computes in integers reads a tensor."""
    return any(arithmetic_of(user, plans) == "integer" for user, _ in value.uses())


def arithmetic_of(reader: Node, plans: Mapping[str, NodePlan]) -> str:
    """How a reader of a tensor computes; in bodies of If, Loop and Scan, which have no plans, all is float."""
    plan = plans.get(str(reader.name))
    return "float" if plan is None else plan.arithmetic

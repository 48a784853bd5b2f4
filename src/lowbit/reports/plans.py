"""A plan in the terminal: what each tensor gets and how each node computes, a line each, and below the tables why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from lowbit.printable import several
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.target import described
from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.reports.tables import Column, fitted, numbers, words
from lowbit.schemes.codes import Scheme

DOWNGRADED, ADAPTED = "!", "*"  # marks of what is said in sentences of its own
ABSORBED = "the saturation of the node before does its work"


@dataclass(frozen=True)
class Noted:
    """A table whose last column numbers notes, which stand below it.

    Attributes:
        columns: of the table.
        rows: a text for each column.
        notes: from number 1 on.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def print_plan(plan: Plan, *, console: Console | None = None) -> None:
    """What is given, by which rule, tensor by tensor; where there are integers node by node."""
    console = console or Console()
    tables = [tensor_table(plan), *([node_table(plan)] if plan.nodes else [])]
    for table in tables:
        console.print(fitted(table.columns, table.rows, console.width))
        for number, note in enumerate(table.notes, 1):
            console.print(Text(f"{number}: {note}.", style="dim"))
    if plan.nodes:
        counted = Counter(node.arithmetic for node in plan.nodes)
        said = f"{several(counted['integer'], 'node')} in integers, {counted['absorbed']} absorbed into them, "
        said += f"{counted['float']} in float."
        if counted["float16"] or counted["float32"]:
            said = f"{several(counted['float16'], 'node')} in float16, {counted['float32']} in float32."
        console.print(said, highlight=False)
    print_target(plan, console)
    print_downgrades(plan, console)
    console.print(Text("`lowbit explain share` says what a heading means.", style="dim"))


def tensor_table(plan: Plan) -> Noted:
    """A row for each tensor: the scheme that it gets, and a mark or a note where that is not what the recipe says."""
    notes: list[str] = []
    rows = []
    for tensor in plan.tensors:
        mark = DOWNGRADED if tensor.downgraded else ADAPTED if tensor.adapted else _number(tensor.reason, notes)
        row = [tensor.tensor, units.shape(tensor.shape), f"{tensor.share:.1%}", *([tensor.rule] if plan.rules else [])]
        rows.append([*row, scheme_name(tensor.given), mark])
    rule = [words("rule")] if plan.rules else []
    columns = [words("tensor"), words("shape"), numbers("share"), *rule, words("scheme"), numbers("note")]
    return Noted(columns, rows, notes)


def node_table(plan: Plan) -> Noted:
    """A row for each node: what it computes in, and why."""
    notes: list[str] = []
    rows = []
    downgraded = {node.node for node in plan.downgraded_nodes}
    for node in plan.nodes:
        why = ABSORBED if node.arithmetic == "absorbed" else node.reason
        mark = DOWNGRADED if node.node in downgraded else _number(why, notes)
        rows.append([node.node, node.op, node.arithmetic, mark])
    return Noted([words("node"), words("op"), words("computes in"), numbers("note")], rows, notes)


def _number(note: str, notes: list[str]) -> str:
    """The number of a note, which is added to the others if it is new; none if there is nothing to say."""
    if not note:
        return ""
    if note not in notes:
        notes.append(note)
    return str(notes.index(note) + 1)


def print_target(plan: Plan, console: Console) -> None:
    """The processor, and what differs from the recipe for its sake or for accuracy's."""
    if plan.target:
        console.print(described(plan.recipe.target, plan.target), highlight=False)
    for note in plan.adaptations:
        console.print(f"{ADAPTED} {note}.", highlight=False)
    for note in plan.limits:
        console.print(f"{note[0].upper()}{note[1:]}.", highlight=False)


def print_downgrades(plan: Plan, console: Console) -> None:
    """What was asked for and is not given."""
    for note in plan.downgrades:
        console.print(Text.assemble((f"{DOWNGRADED} ", "yellow"), f"{note}."))


def scheme_name(scheme: Scheme | None) -> str:
    """A scheme in words; none is float."""
    return scheme.name if scheme is not None else "float"

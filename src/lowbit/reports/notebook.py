"""Values as notebooks show them: small tables that need nothing from outside, readable on light and dark pages."""

import contextlib
from collections.abc import Mapping, Sequence

from lowbit.errors import LowbitError
from lowbit.graph.cost import cost
from lowbit.graph.model import Model
from lowbit.measurement.results import Comparison
from lowbit.printable import brief, several
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.quantized import Quantized
from lowbit.reports import units
from lowbit.reports.columns import best_of, columns_of
from lowbit.reports.footnotes import complaints, footnotes
from lowbit.reports.markup import Markup, element, join
from lowbit.reports.plans import Noted, node_table, tensor_table
from lowbit.reports.plot import plot
from lowbit.reports.tables import Column, numbers, words
from lowbit.reports.written import step_table

MOST_ROWS = 40  # of a table; a network may have thousands of layers
# The colors of text come from the page around it, so that they suit light and dark ones.
STYLE = Markup("""
.lowbit{font:13px/1.5 system-ui,sans-serif}
.lowbit div{overflow-x:auto}
.lowbit table{border-collapse:collapse;margin:.4em 0;font-variant-numeric:tabular-nums;border:0}
.lowbit th,.lowbit td{padding:.1em 1em .1em 0;border:0;text-align:right;white-space:nowrap;background:none}
.lowbit th{font-weight:600;vertical-align:bottom}
.lowbit thead th{border-bottom:1px solid;border-color:rgb(128 128 128/.5)}
.lowbit small{display:block;font-weight:400;opacity:.7}
.lowbit th.text,.lowbit td.text{text-align:left!important}
.lowbit .best{font-weight:600;text-decoration:underline;text-decoration-thickness:1px;text-underline-offset:3px}
.lowbit p{margin:.2em 0;opacity:.8;max-width:60em}
""")


def model_html(model: Model) -> str:
    """A model: inputs and outputs, and its layers with what they cost."""
    head = element("p", {}, element("b", {}, model.source), f": {summary_of(model)}")
    try:
        costs = cost(model)
    except LowbitError as error:  # sizes that are not known before it runs
        return _whole([head, element("p", {}, str(error))])
    columns = [words("layer"), words("op"), words("output"), words("weight"), numbers("parameters"), numbers("MACs")]
    rows = [
        (
            layer.node,
            layer.op,
            units.shape(layer.output_shape),
            units.shape(layer.weight_shape),
            units.count(layer.parameters),
            units.amount(layer.macs),
        )
        for layer in costs.layers
    ]
    total = element(
        "p", {}, f"{several(costs.parameters, 'parameter')}, {units.amount(costs.macs)} MACs for one sample"
    )
    return _whole([head, _table(columns, rows), total])


def summary_of(model: Model) -> str:
    """Inputs and outputs with their shapes."""
    ends = (
        ", ".join(f"{info.name} {units.shape(info.shape, ' x ')}" for info in some)
        for some in (model.inputs, model.outputs)
    )
    return " → ".join(ends)


def plan_html(plan: Plan) -> str:
    """A plan: what each tensor gets and how each node computes, and why."""
    return _whole([element("p", {}, element("b", {}, f"Plan: {plan.title}")), *_plan_parts(plan)])


def _plan_parts(plan: Plan) -> list[Markup]:
    parts = [_noted(tensor_table(plan))]
    if plan.nodes:
        parts.append(_noted(node_table(plan)))
    said = [f"* {note}." for note in plan.adaptations] + [f"! {note}." for note in plan.downgrades]
    return [*parts, *_sentences(said)]


def quantized_html(quantized: Quantized) -> str:
    """A quantized model: the plan that was followed, and what each step brought."""
    title = f"{quantized.model.source} as {quantized.plan.title}"
    parts = [element("p", {}, element("b", {}, title))]
    if quantized.steps:
        parts.append(_noted(step_table(quantized.steps), numbered=False))
    return _whole([*parts, *_plan_parts(quantized.plan), *_sentences(quantized.notes)])


def comparison_html(comparison: Comparison) -> str:
    """A comparison: its chart, the table with all columns, and how it was measured."""
    if not comparison.rows:
        return _whole([element("p", {}, "A comparison without rows.")])
    parts = [_comparison_table(comparison)]
    with contextlib.suppress(LowbitError):  # there is nothing to draw
        parts.insert(0, Markup(plot(comparison)._repr_html_()))
    return _whole([*parts, *_sentences([*footnotes(comparison), *complaints(comparison)])])


def _comparison_table(comparison: Comparison) -> Markup:
    columns, rows = columns_of(comparison), comparison.rows
    quantized = [row for row in rows if not comparison.is_reference(row)]
    best = [best_of(column, quantized) for column in columns]
    heads = [element("th", {"class": "text"}, comparison.named_by)]
    heads += [element("th", {"title": each.help}, each.title, element("small", {}, each.unit)) for each in columns]
    lines = []
    for row in rows:
        cells = [element("th", {"class": "text", "title": row.file}, row.name)]
        for column, top in zip(columns, best, strict=True):
            wins = top and not comparison.is_reference(row) and column.cell(row) == top
            cells.append(element("td", {"class": "best"} if wins else {}, column.cell(row)))
        lines.append(element("tr", {}, *cells))
    head = element("thead", {}, element("tr", {}, *heads))
    return element("div", {}, element("table", {}, head, element("tbody", {}, *lines)))


def _noted(table: Noted, *, numbered: bool = True) -> Markup:
    notes = [f"{number}: {note}." for number, note in enumerate(table.notes, 1)] if numbered else table.notes
    return join([_table(table.columns, table.rows), *_sentences(notes)])


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Markup:
    """A table of its first rows, and how many more there are."""
    kinds = [{} if column.right else {"class": "text"} for column in columns]
    head = element("tr", {}, *(element("th", kind, each.head) for kind, each in zip(kinds, columns, strict=True)))
    lines = [
        element("tr", {}, *(_cell(kind, cell) for kind, cell in zip(kinds, row, strict=True)))
        for row in rows[:MOST_ROWS]
    ]
    made = element("div", {}, element("table", {}, element("thead", {}, head), element("tbody", {}, *lines)))
    return join([made, *_sentences([f"and {len(rows) - MOST_ROWS:,} more"] if len(rows) > MOST_ROWS else [])])


def _cell(kind: Mapping[str, str], text: str) -> Markup:
    """A cell; of a long name beginning and end, and the whole where the mouse rests."""
    short = brief(text)
    return element("td", kind if short == text else {**kind, "title": text}, short)


def _sentences(notes: Sequence[str]) -> list[Markup]:
    shown = [element("p", {}, note) for note in notes[:MOST_ROWS]]
    return [*shown, *([element("p", {}, f"and {len(notes) - MOST_ROWS:,} more")] if len(notes) > MOST_ROWS else [])]


def _whole(parts: Sequence[Markup]) -> str:
    return element("div", {"class": "lowbit"}, element("style", {}, STYLE), *parts)

"""The section with the graph of the network, in which bits are colors, for one file at a time."""

from collections.abc import Mapping

from lowbit.measurement.details import LayerRow
from lowbit.measurement.results import Comparison, Row
from lowbit.reports import units
from lowbit.reports.distinct import distinct
from lowbit.reports.markup import Markup, element, scrolling
from lowbit.reports.network_chart import Mark, network_chart
from lowbit.reports.svg import both

# Class, the most bits per weight that it stands for, what the legend calls it.
KINDS = (
    ("b2", 2.5, "1 or 2 bits"),
    ("b4", 4.5, "3 or 4 bits"),
    ("b6", 6.5, "5 or 6 bits"),
    ("b8", 8.5, "7 or 8 bits"),
    ("b16", 16.5, "9 to 16 bits"),
    ("b32", 1e9, "32 bits"),
)


def network_view(comparison: Comparison) -> Markup:
    """The graph with a choice of files; shown first is the one with the most kinds of bits, or the smallest."""
    files = distinct(
        [row for row in comparison.files if row.details.layers],
        lambda one, other: _marks(comparison, one) == _marks(comparison, other),
    )
    if not comparison.network or not files or not _is_sorted(comparison):
        return Markup("")
    drawn = [_marks(comparison, row) for row in files]
    kinds = [{mark.kind for mark in marks if mark.bits} for marks in drawn]
    first = max(range(len(files)), key=lambda i: (len(kinds[i]), -files[i].file_bytes))
    used = {kind for each in kinds for kind in each}
    boxes = [
        _choice(row, marks, checked=place == first) for place, (row, marks) in enumerate(zip(files, drawn, strict=True))
    ]
    choice = element("fieldset", {"class": "choice"}, element("legend", {}, "File"), *boxes)
    zooms = [
        element("button", {"type": "button", "data-zoom": by, "title": name, "aria-label": name}, sign)
        for by, name, sign in (("1.5", "Zoom in", "+"), ("0.67", "Zoom out", "−"))
    ]
    zooms.append(element("button", {"type": "button", "data-zoom": "all"}, "Fit"))
    chart = both(lambda width: scrolling(network_chart(comparison.network, drawn[first], width)))
    named = [(kind, title) for kind, _, title in KINDS if kind in used]
    legend = [
        element("span", {}, element("i", {"class": f"swatch {kind}"}), title)
        for kind, title in (*named, ("join", "input, output, branches meet"))
    ]
    words = (
        "Layers from left to right and line by line, with the bits of a weight's code in this file. Touch one to read "
        "more; zoom with the buttons or Ctrl and wheel, and drag to move."
    )
    below = element("div", {"class": "legend"}, *legend)
    return element(
        "div",
        {"class": "graph"},
        choice,
        element("div", {"class": "zoom"}, *zooms),
        chart,
        below,
        element("p", {"class": "note"}, words),
    )


def _marks(comparison: Comparison, row: Row) -> list[Mark]:
    """Class, bits and hint of each node in one file."""
    layers = {layer.name: layer for layer in row.details.layers}
    places = {layer.name: place for place, layer in enumerate(row.details.layers, 1)}
    marks: list[Mark] = []
    for node in comparison.network:
        # Recurrent nodes have two weights, which are called after their node.
        name = node.name if node.name in layers else f"{node.name}.W"
        if node.op in ("Input", "Output"):
            marks.append(Mark("join", f"{node.op} {node.name}"))
        elif name in layers:
            marks.append(_mark(layers[name], places[name]))
        else:
            marks.append(Mark("join", f"{node.name} ({node.op})"))
    return marks


def _mark(layer: LayerRow, place: int) -> Mark:
    bits = layer.bits if layer.code_bits is None else layer.code_bits
    kind = next(kind for kind, most, _ in KINDS if bits <= most)
    parts = [
        f"{place} {layer.name} ({layer.op}): {bits:.3g} bits",
        layer.scheme,
        f"{layer.bits:.3g} with scales and code books" if f"{layer.bits:.3g}" != f"{bits:.3g}" else "",
        f"stays float: {layer.stays_float}" if layer.stays_float else "",
        units.size(layer.bytes),
        f"{units.amount(layer.macs)} MACs",
    ]
    return Mark(kind, ", ".join(part for part in parts if part), f"{bits:.2g}", place)


def _choice(row: Row, marks: list[Mark], *, checked: bool) -> Markup:
    """A file to choose, with what the script shows then."""
    layers = [mark for mark in marks if mark.bits]
    data: Mapping[str, str] = {
        "data-kinds": " ".join(mark.kind for mark in layers),
        "data-bits": " ".join(mark.bits for mark in layers),
        "data-words": "\n".join(mark.hint.replace("\n", " ") for mark in layers),
    }
    state = {"checked": ""} if checked else {}
    radio = element("input", {"type": "radio", "name": "graph-file", **data, **state})
    return element("label", {}, radio, f" {row.name}")


def _is_sorted(comparison: Comparison) -> bool:
    """Whether a results.json from elsewhere can be drawn: every input comes before the node that reads it."""
    return all(0 <= i < place for place, node in enumerate(comparison.network) for i in node.inputs)

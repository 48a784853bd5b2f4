"""The table of all files: columns in groups that readers choose from, of which those show first that fit a desktop."""

from collections.abc import Sequence
from itertools import groupby
from urllib.parse import quote

from lowbit.measurement.results import Comparison, Row
from lowbit.reports.columns import GROUPS, QUALITY, SIZE, SPEED, Column, best_of, columns_of
from lowbit.reports.footnotes import footnotes
from lowbit.reports.markup import Markup, element, scrolling, sort_head

ROOM = 952.0  # pixels that the page has for a table on a desktop
PHONE_RANK = 2
LETTER, PADDING, LEAST = 7.3, 17.0, 46.0  # of cells, in pixels
FIRST = (SIZE, QUALITY, SPEED)  # groups that get room before the others
LEGEND = "In color: the best of the quantized files. Ratios above 1 are better than float."


def all_files(comparison: Comparison, linked: frozenset[str] = frozenset()) -> Markup:
    """The table with its choice of columns, and how to read it.

    Args:
        comparison: what was measured.
        linked: names of files that lie beside the page.
    """
    columns = sorted(columns_of(comparison), key=lambda column: GROUPS.index(column.group))
    groups = {name: list(some) for name, some in groupby(columns, key=lambda column: column.group)}
    names = _width([comparison.named_by, *(row.name for row in comparison.rows)])
    shown = fitting(groups, comparison, ROOM - names)
    bands = [
        element("th", {"scope": "colgroup", "colspan": str(len(some)), "class": _class(name)}, name)
        for name, some in groups.items()
    ]
    heads = [
        sort_head(
            column.title, element("small", {}, column.unit), help=column.help, **{"class": _classes(column, groups)}
        )
        for column in columns
    ]
    head = element(
        "thead", {},
        element("tr", {"class": "bands"}, element("td", {}), *bands),
        element("tr", {}, sort_head(comparison.named_by, element("small", {}, "")), *heads),
    )  # fmt: skip
    body = element("tbody", {}, *_lines(comparison, columns, groups, linked))
    chosen = element(
        "fieldset", {"class": "choice"}, element("legend", {}, "Columns"),
        *(_box(_class(name), name, checked=name in shown) for name in groups),
        *([_box("all", "all of these", checked=False)] if any(c.rank > PHONE_RANK for c in columns) else []),
    )  # fmt: skip
    notes = element("ul", {"class": "notes"}, *(element("li", {}, note) for note in (*footnotes(comparison), LEGEND)))
    whole = scrolling(element("table", {"class": "sortable"}, head, body))
    return element("div", {"class": "main-table"}, *([chosen] if len(groups) > 1 else []), whole, notes)


def fitting(groups: dict[str, list[Column]], comparison: Comparison, room: float) -> set[str]:
    """Names of the groups that fit side by side into so many pixels; size and quality always show."""
    shown: set[str] = set()
    for name in sorted(groups, key=lambda name: (name not in FIRST, GROUPS.index(name))):
        need = sum(
            _width([column.title, f"{column.unit} ↕", *(column.cell(row) for row in comparison.rows)])
            for column in groups[name]
        )
        if name in (SIZE, QUALITY) or need <= room:
            shown.add(name)
            room -= need
    return shown


def choice_style() -> str:
    """The style that hides the groups that are not chosen."""
    names = [_class(name) for name in GROUPS]
    hidden = ",".join(f".main-table:has(#{name}:not(:checked)) .{name}" for name in names)
    return f"{hidden}{{display:none}}"


def _lines(
    comparison: Comparison, columns: Sequence[Column], groups: dict[str, list[Column]], linked: frozenset[str]
) -> list[Markup]:
    best = [best_of(column, [row for row in comparison.rows if not comparison.is_reference(row)]) for column in columns]
    lines = []
    for place, row in enumerate(comparison.rows):
        cells = [element("th", {"scope": "row"}, _named(row, linked))]
        tops = [""] * len(columns) if comparison.is_reference(row) else best
        for column, top in zip(columns, tops, strict=True):
            value, cell = column.number(row), column.cell(row)
            kind = _classes(column, groups) + (" best" if top and cell == top else "")
            cells.append(element("td", {"class": kind, "data-v": "" if value is None else repr(value)}, cell))
        lines.append(element("tr", {"class": "reference"} if place == 0 else {}, *cells))
    return lines


def _named(row: Row, linked: frozenset[str]) -> Markup:
    """The name of a row, which leads to its file where that is known to be there."""
    if row.file in linked:
        return element("a", {"href": f"./{quote(row.file, safe='')}", "title": f"Open {row.file}"}, row.name)
    return element("span", {"title": row.file}, row.name)


def _box(name: str, title: str, *, checked: bool) -> Markup:
    state = {"checked": ""} if checked else {}
    box = element("input", {"type": "checkbox", "id": name, **state})
    return element("label", {"class": "all"} if name == "all" else {}, box, f" {title}")


def _class(group: str) -> str:
    return "g-" + group.lower().replace(" ", "-")


def _classes(column: Column, groups: dict[str, list[Column]]) -> str:
    """Its group, whether it begins that, and whether a phone leaves it out."""
    first = groups[column.group][0] is column
    return f"{_class(column.group)}{' first' if first else ''}{' minor' if column.rank > PHONE_RANK else ''}"


def _width(texts: Sequence[str]) -> float:
    return max(LEAST, PADDING + LETTER * max(map(len, texts)))

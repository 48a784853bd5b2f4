"""The graph of the network, drawn like sheet music: layers from left to right, in as many lines as it takes.

Ranks are longest paths from the inputs, one column each. A node stands in the lane of its latest input where that is
free; a connection that passes other nodes has a lane of its own (layered drawing after Sugiyama et al. 1981, with lanes
given to the first that comes instead of sorting for the fewest crossings, so that a thousand nodes take no time).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lowbit.measurement.results import NetworkNode
from lowbit.reports.markup import Markup, element
from lowbit.reports.svg import svg, text, tooltip

PITCH, LANE = 24.0, 30.0
HALF, TALL = 9.5, 22.0  # half the width and the height of a layer


@dataclass(frozen=True)
class Mark:
    """How a node is drawn.

    Attributes:
        kind: its class.
        hint: what shows where it is touched.
        bits: that stand in a layer; empty for all else, which is a dot.
        number: of a layer, in order of execution.
    """

    kind: str
    hint: str
    bits: str = ""
    number: int = 0


@dataclass(frozen=True)
class Layout:
    """Where nodes stand, and by source the lane of the connections that pass others."""

    ranks: tuple[int, ...]
    lanes: tuple[int, ...]
    passing: dict[int, int]

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return max(self.ranks, default=0) + 1


def layout(nodes: Sequence[NetworkNode]) -> Layout:
    """Ranks and lanes of nodes in execution order."""
    ranks: list[int] = []
    for node in nodes:
        ranks.append(max((ranks[i] + 1 for i in node.inputs), default=0))
    end = max(ranks, default=0)
    # Outputs stand at the end of the network only if that is where they come from.
    reach: dict[int, int] = {}
    for place, node in enumerate(nodes):
        for i in node.inputs:
            reach[i] = max(reach.get(i, 0), ranks[place])
    taken: list[set[int]] = [set() for _ in range(end + 1)]
    lanes, passing = [0] * len(nodes), {}
    for place in sorted(range(len(nodes)), key=lambda place: (ranks[place], place)):
        rank, inputs = ranks[place], nodes[place].inputs
        latest = max(inputs, key=lambda i: (ranks[i], -i), default=None)
        wanted = 0 if latest is None else lanes[latest]
        lanes[place] = _free(wanted, [rank], taken, avoid=None)
        taken[rank].add(lanes[place])
        between = range(rank + 1, reach.get(place, rank))
        if between:
            passing[place] = _free(lanes[place], between, taken, avoid=lanes[place])
            for column in between:
                taken[column].add(passing[place])
    return Layout(tuple(ranks), tuple(lanes), passing)


def network_chart(nodes: Sequence[NetworkNode], marks: Sequence[Mark], width: float) -> Markup:
    """The drawing.

    Args:
        nodes: inputs, layers, joins and outputs in execution order.
        marks: one for each node.
        width: in pixels.
    """
    where = layout(nodes)
    lines = math.ceil(where.columns / max(1, int((width - 8) // PITCH)))
    most = math.ceil(where.columns / lines)
    parts: list[Markup] = []
    top = 4.0
    for first in range(0, where.columns, most):
        columns = range(first, min(first + most, where.columns))
        strip, height = _strip(nodes, marks, where, columns)
        # As wide as its columns, so that what goes on in the next line ends here.
        wide = len(columns) * PITCH + 8
        box: dict[str, str | float] = {"y": top, "width": wide, "height": height, "class": "strip"}
        parts.append(element("svg", {**box, "viewBox": f"0 0 {wide:g} {height:g}"}, *strip))
        top += height + 6
    return svg(width, top, "Graph of the network", parts)


def _strip(
    nodes: Sequence[NetworkNode], marks: Sequence[Mark], where: Layout, columns: range
) -> tuple[list[Markup], float]:
    """One line of the drawing and its height."""
    inside = [place for place, rank in enumerate(where.ranks) if rank in columns]
    crossing = [
        (source, place)
        for place, node in enumerate(nodes)
        for source in node.inputs
        if where.ranks[source] < columns.stop and where.ranks[place] >= columns.start
    ]
    lanes = [where.lanes[place] for place in inside]
    lanes += [where.passing[source] for source, place in crossing if where.ranks[place] - where.ranks[source] > 1]
    low, high = min(lanes, default=0), max(lanes, default=0)

    def at(rank: int, lane: int) -> tuple[float, float]:
        return 4 + (rank - columns.start + 0.5) * PITCH, (lane - low + 0.5) * LANE

    parts: list[Markup] = []
    for source, place in crossing:
        start, end = at(where.ranks[source], where.lanes[source]), at(where.ranks[place], where.lanes[place])
        passes = where.ranks[place] - where.ranks[source] > 1
        across = at(0, where.passing[source])[1] if passes else None
        parts.append(element("path", {"d": _connection(start, end, across), "class": "edge"}))
    for place in inside:
        x, y = at(where.ranks[place], where.lanes[place])
        parts.append(_node(marks[place], x, y))
    return parts, (high - low + 1) * LANE


def _connection(start: tuple[float, float], end: tuple[float, float], across: float | None) -> str:
    """A line from node to node; `across` is the height of the lane in which it passes others."""
    (x1, y1), (x2, y2) = start, end
    if across is None:
        return f"M{x1:.0f} {y1:.0f}L{x2:.0f} {y2:.0f}"
    turn = PITCH / 2
    return (
        f"M{x1:.0f} {y1:.0f}C{x1 + turn:.0f} {y1:.0f} {x1 + turn:.0f} {across:.0f} {x1 + PITCH:.0f} {across:.0f}"
        f"H{x2 - PITCH:.0f}C{x2 - turn:.0f} {across:.0f} {x2 - turn:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
    )


def _node(mark: Mark, x: float, y: float) -> Markup:
    """A box for a layer, a dot for all else."""
    if not mark.bits:
        dot = element("circle", {"cx": x, "cy": y, "r": 4.0})
        return element("g", {"class": f"node {mark.kind}"}, dot, tooltip(mark.hint))
    box = {"x": x - HALF, "y": y - TALL / 2, "width": 2 * HALF, "height": TALL - 4, "rx": 3}
    return element(
        "g", {"class": f"node {mark.kind}", "data-layer": ""}, element("rect", box),
        text(x, y + 1, mark.bits, "bits mid"), text(x, y + 13, str(mark.number), "tiny mid"), tooltip(mark.hint),
    )  # fmt: skip


def _free(wanted: int, columns: Sequence[int], taken: Sequence[set[int]], *, avoid: int | None) -> int:
    """The lane nearest to the wanted one that is free in all columns, of two equally near ones the upper."""
    step = 0
    while True:
        for lane in (wanted - step, wanted + step):
            if lane != avoid and not any(lane in taken[column] for column in columns):
                return lane
        step += 1

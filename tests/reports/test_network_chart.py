"""The layout of the graph: nothing stands on anything else."""

import random

import pytest

from lowbit.measurement.results import NetworkNode
from lowbit.reports.network_chart import Mark, layout, network_chart


def chain(count, skip=0):
    """Nodes one after the other, and a connection past so many at every second one."""
    nodes = [NetworkNode("in", "Input")]
    for i in range(1, count):
        far = (i - 1 - skip,) if skip and i % 2 and i > skip else ()
        nodes.append(NetworkNode(f"n{i}", "Add" if far else "Conv", (*far, i - 1)))
    return nodes


def wild(count, seed):
    numbers = random.Random(seed)
    return [
        NetworkNode(f"n{i}", "Conv", tuple(sorted({numbers.randrange(max(0, i - 12), i) for _ in range(i and 2)})))
        for i in range(count)
    ]


@pytest.mark.parametrize("nodes", [chain(9), chain(40, skip=3), wild(60, 1), wild(60, 2)])
def test_nodes_and_connections_have_places_of_their_own(nodes):
    where = layout(nodes)
    places = set(zip(where.ranks, where.lanes, strict=True))
    assert len(places) == len(nodes)
    for place, node in enumerate(nodes):
        for source in node.inputs:
            assert where.ranks[source] < where.ranks[place]
            if where.ranks[place] - where.ranks[source] > 1:
                lane = where.passing[source]
                assert not places & {(rank, lane) for rank in range(where.ranks[source] + 1, where.ranks[place])}


def test_a_chain_is_a_line():
    assert set(layout(chain(30)).lanes) == {0}


@pytest.mark.parametrize("width", [343.0, 960.0])
def test_a_thousand_nodes_are_drawn_once_each(width):
    nodes = wild(1000, 3)
    marks = [Mark("b8", f"hint {i}.", "8", i) for i in range(1000)]
    drawing = network_chart(nodes, marks, width)
    assert all(drawing.count(f"<title>hint {i}.</title>") == 1 for i in range(0, 1000, 37))
    assert drawing.count('class="node b8"') == 1000

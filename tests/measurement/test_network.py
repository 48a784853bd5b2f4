"""The graph that a page shows: layers, joins, and what feeds them past all that lies between."""

import numpy as np

import lowbit
from graphs import make, make_node
from lowbit.measurement import network as module
from lowbit.measurement.network import network


def residual():
    nodes = [
        make_node("Conv", "x w", "a", name="first", pads=[1, 1, 1, 1]),
        make_node("Relu", "a", "r", name="relu"),
        make_node("Conv", "r v", "b", name="second", pads=[1, 1, 1, 1]),
        make_node("Sigmoid", "b", "s", name="sigmoid"),
        make_node("Add", "r s", "sum", name="join"),
        make_node("GlobalAveragePool", "sum", "y", name="pool"),
    ]
    weights = {name: np.ones((4, channels, 3, 3), np.float32) for name, channels in (("w", 3), ("v", 4))}
    return lowbit.load(make(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 4, 1, 1]}, weights))


def test_layers_and_joins_are_kept():
    nodes = network(residual())
    assert [(node.name, node.op, node.inputs) for node in nodes] == [
        ("x", "Input", ()),
        ("first", "Conv", (0,)),
        ("second", "Conv", (1,)),
        ("join", "Add", (1, 2)),
        ("y", "Output", (3,)),
    ]


def test_a_network_that_no_page_could_show_is_left_out(monkeypatch):
    monkeypatch.setattr(module, "MOST_NODES", 4)
    assert network(residual()) == ()

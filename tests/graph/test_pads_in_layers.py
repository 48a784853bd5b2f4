"""Pads become those of the convolution or pool behind them, only where that gives the same numbers."""

import numpy as np
import pytest
from graph_models import make, normal
from simplified import count, simplified

FEEDS = {"x": normal(7, 2, 3, 7, 7)}
FIRST = [("Conv", ["x", "w0"], ["c"], {}), ("Relu", ["c"], ["r"], {})]
LOWEST = float(np.finfo(np.float32).min)


def padded(reader, *, source="r", fill=None, pads=(0, 0, 1, 2, 0, 0, 2, 1), mode="constant", more=()):
    """A network with one Pad before `reader`, which reads `p`."""
    weights = {"w0": normal(1, 3, 3, 1, 1), "pads": np.array(pads)} | (
        {} if fill is None else {"fill": np.float32(fill)}
    )
    if reader[0] == "Conv":
        weights["w"] = normal(2, 4, 3, 3, 3)
    inputs = [source, "pads"] + ([] if fill is None else ["fill"])
    nodes = [*FIRST, ("Pad", inputs, ["p"], {"mode": mode}), reader, *more]
    return make(nodes, {"x": ["n", 3, 7, 7]}, ["y", *(node[2][0] for node in more)], weights)


def pool(op, **attributes):
    return (op, ["p"], ["y"], {"kernel_shape": [3, 3], "strides": [2, 2]} | attributes)


CONV = ("Conv", ["p", "w"], ["y"], {})
FOLDED = {
    "convolution": padded(CONV, source="c"),
    "zero that is written": padded(CONV, source="c", fill=0),
    "convolution that pads itself": padded(("Conv", ["p", "w"], ["y"], {"pads": [1, 0, 0, 1]}), source="c"),
    "convolution without padding": padded(("Conv", ["p", "w"], ["y"], {"auto_pad": "VALID"}), source="c"),
    "mean": padded(pool("AveragePool"), source="c"),
    "mean that counts its padding": padded(pool("AveragePool", count_include_pad=1, pads=[1, 0, 0, 1]), source="c"),
    "maximum of what is not negative": padded(pool("MaxPool")),
    "maximum with the smallest number": padded(pool("MaxPool"), source="c", fill=LOWEST),
    "maximum with minus infinity": padded(pool("MaxPool"), source="c", fill=-np.inf),
}
KEPT = {
    "another number": padded(CONV, fill=1),
    "reflection": padded(CONV, mode="reflect"),
    "channels": padded(pool("MaxPool"), pads=(0, 1, 0, 0, 0, 1, 0, 0)),
    "a cut": padded(CONV, pads=(0, 0, 1, -1, 0, 0, 1, 1)),
    "convolution of the same size": padded(("Conv", ["p", "w"], ["y"], {"auto_pad": "SAME_UPPER"})),
    "mean that does not count its padding": padded(pool("AveragePool", pads=[1, 1, 1, 1])),
    "mean that is rounded up": padded(pool("AveragePool", ceil_mode=1)),
    "mean of padding alone": padded(pool("AveragePool"), pads=(0, 0, 3, 0, 0, 0, 0, 0)),
    "maximum of what may be negative": padded(pool("MaxPool"), source="c"),
    "maximum over padding alone": padded(pool("MaxPool"), pads=(0, 0, 3, 0, 0, 0, 3, 0)),
    "maximum with gaps": padded(pool("MaxPool", dilations=[2, 2])),
    "maximum with places": padded(("MaxPool", ["p"], ["y", "places"], {"kernel_shape": [3, 3]})),
}


@pytest.mark.parametrize("form", FOLDED)
def test_a_pad_is_folded(form):
    assert count(simplified(FOLDED[form], FEEDS))["Pad"] == 0


@pytest.mark.parametrize("form", KEPT)
def test_a_pad_stays(form):
    if form == "maximum with places":
        KEPT[form].graph.output.add(name="places").type.tensor_type.elem_type = 7
    assert count(simplified(KEPT[form], FEEDS))["Pad"] == 1


def test_each_reader_for_itself():
    model = simplified(padded(CONV, more=[("Sigmoid", ["p"], ["z"], {})]), FEEDS)
    assert count(model) == {"Conv": 2, "Relu": 1, "Pad": 1, "Sigmoid": 1}
    last = [node for node in model.graph if node.op_type == "Conv"][-1]
    assert list(last.attributes.get_ints("pads", [])) == [1, 2, 2, 1]


def test_efficientnet_has_no_pad_left(shared_data):
    from lowbit.graph.load import load

    assert count(load(shared_data / "imagenet" / "efficientnet_lite0.onnx")) == {
        "Conv": 49, "Clip": 33, "Add": 9, "GlobalAveragePool": 1, "Reshape": 1, "Gemm": 1,
    }  # fmt: skip

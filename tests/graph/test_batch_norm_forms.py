"""Batch norms that are written out as Mul, Div, Add and Sub: folded where they do the same to all of a channel."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node
from lowbit.engines import open_session

GENERATOR = np.random.default_rng(8)
LAYERS = ("Conv", "Conv without bias", "Conv of one axis", "ConvTranspose", "grouped ConvTranspose", "Gemm", "MatMul")
# operators in turn; a number is a constant's place among the inputs
FORMS = {
    "scale, shift": (("Mul", 1), ("Add", 1)),
    "centered, divided, scaled, shifted": (("Sub", 1), ("Div", 1), ("Mul", 0), ("Add", 0)),
    "constant minus value": (("Sub", 0), ("Mul", 1)),
    "shift alone": (("Add", 1),),
}


def layer(kind):
    """Nodes, weights and input of a layer of 6 output channels, with the shape that a constant per channel has."""
    extents = [8] if kind == "Conv of one axis" else [8, 8]
    ones = [1] * len(extents)
    if kind in ("Gemm", "MatMul"):
        weights = {"w": GENERATOR.normal(size=(4, 6)), "b": GENERATOR.normal(size=6)}
        nodes = [make_node("Gemm", "x w b", "h")]
        if kind == "MatMul":
            nodes = [make_node("MatMul", "x w", "product"), make_node("Add", "product b", "h")]
        return nodes, weights, ["n", 4], [6]
    channels = {"ConvTranspose": (4, 6), "grouped ConvTranspose": (4, 3)}.get(kind, (6, 4))
    weights = {"w": GENERATOR.normal(size=(*channels, *[3] * len(extents))), "b": GENERATOR.normal(size=6)}
    groups = {"group": 2} if kind.startswith("grouped") else {}
    inputs = "x w" if kind == "Conv without bias" else "x w b"
    op = "ConvTranspose" if "Transpose" in kind else "Conv"
    return [make_node(op, inputs, "h", **groups)], weights, ["n", 4, *extents], [6, *ones]


def written_out(kind, form, *, shape=None):
    nodes, weights, inputs, usual = layer(kind)
    weights = {name: value for name, value in weights.items() if any(name in node.input for node in nodes)}
    last = "h"
    for number, (op, place) in enumerate(FORMS[form]):
        weights[f"c{number}"] = GENERATOR.uniform(0.5, 2, shape or usual)
        given = f"c{number} {last}" if place == 0 else f"{last} c{number}"
        nodes.append(make_node(op, given, f"t{number}"))
        last = f"t{number}"
    nodes.append(make_node("Relu", last, "y"))
    return make(nodes, {"x": inputs}, ["y"], weights), inputs


def same(proto, inputs):
    """The prepared model, which answers as the graph it came from."""
    model = lowbit.load(proto)
    x = GENERATOR.normal(size=[3, *inputs[1:]]).astype(np.float32)
    exact, given = (
        open_session(content, threads=1).run({"x": x})["y"] for content in (proto.SerializeToString(), model.to_bytes())
    )
    np.testing.assert_allclose(given, exact, rtol=1e-4, atol=1e-5)
    return [node.op_type for node in model.nodes.values()]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LAYERS)
def test_they_are_folded_behind_every_kind_of_layer(kind, form):
    ops = same(*written_out(kind, form))
    assert ops == ["Gemm" if kind == "MatMul" else kind.split()[-1] if "Transpose" in kind else kind.split()[0], "Relu"]


@pytest.mark.parametrize("shape", [[1], [1, 1, 1], [1, 1, 1, 1], [1, 6, 1, 1]])
def test_one_value_for_all_and_constants_of_full_rank_are_folded(shape):
    assert same(*written_out("Conv", "scale, shift", shape=shape)) == ["Conv", "Relu"]


@pytest.mark.parametrize("shape", [[6], [6, 6], [1, 6, 6, 6], [1, 6, 1, 6], [1, 1, 6, 1, 1], [2, 1, 6, 1, 1]])
def test_what_differs_within_a_channel_or_adds_axes_stays(shape):
    """The output is 6 wide and 6 high, with 6 channels."""
    assert same(*written_out("Conv", "scale, shift", shape=shape)) == ["Conv", "Mul", "Add", "Relu"]


def test_what_another_node_reads_too_stays():
    nodes, weights, inputs, usual = layer("Conv")
    weights["c"] = GENERATOR.uniform(0.5, 2, usual)
    nodes += [make_node("Mul", "h c", "t"), make_node("Add", "t h", "y")]
    assert same(make(nodes, {"x": inputs}, ["y"], weights), inputs) == ["Conv", "Mul", "Add"]


def test_a_constant_divided_by_a_value_and_division_by_zero_stay():
    for given, value in (("c h", 2.0), ("h c", 0.0)):
        nodes, weights, inputs, usual = layer("Conv")
        weights["c"] = np.full(usual, value)
        nodes += [make_node("Div", given, "t"), make_node("Sigmoid", "t", "y")]
        model = lowbit.load(make(nodes, {"x": inputs}, ["y"], weights))
        assert [node.op_type for node in model.nodes.values()] == ["Conv", "Div", "Sigmoid"]


PRODUCTS = {
    "scaled, then a bias": ([("Mul", 1), ("Add", 1)], ["MatMul", "Add", "Relu"]),
    "centered, scaled, shifted": ([("Sub", 1), ("Mul", 0), ("Add", 0)], ["MatMul", "Add", "Relu"]),
    "divided only": ([("Div", 1)], ["MatMul", "Relu"]),
    "a constant minus the product": ([("Sub", 0)], ["MatMul", "Sub", "Relu"]),
}


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("form", PRODUCTS)
def test_a_product_without_a_bias_takes_factors_and_then_a_bias(form, axes):
    steps, left = PRODUCTS[form]
    nodes, weights, last = [make_node("MatMul", "x w", "p")], {"w": GENERATOR.normal(size=(4, 6))}, "p"
    for number, (op, place) in enumerate(steps):
        weights[f"c{number}"] = GENERATOR.uniform(0.5, 2, 6)
        nodes.append(make_node(op, f"c{number} {last}" if place == 0 else f"{last} c{number}", f"t{number}"))
        last = f"t{number}"
    inputs = ["n", 4] if axes == 1 else ["n", 5, 4]
    if axes == 1 and "Add" in left:
        left = ["Gemm", "Relu"]
    assert same(make([*nodes, make_node("Relu", last, "y")], {"x": inputs}, ["y"], weights), inputs) == left


@pytest.mark.parametrize("why", ["an output", "read elsewhere", "several weights", "a factor for each row"])
def test_a_product_that_cannot_take_a_factor_keeps_it(why):
    nodes = [make_node("MatMul", "x w", "p"), make_node("Mul", "p f", "t"), make_node("Relu", "t", "y")]
    weights = {"w": GENERATOR.normal(size=(4, 6)), "f": GENERATOR.uniform(0.5, 2, 6)}
    outputs, inputs = ["y"], ["n", 5, 4]
    if why == "an output":
        outputs = ["y", "p"]
    elif why == "read elsewhere":
        nodes, outputs = [*nodes, make_node("Exp", "p", "z")], ["y", "z"]
    elif why == "several weights":
        weights["w"], inputs = GENERATOR.normal(size=(5, 4, 6)), ["n", 5, 5, 4]
        nodes.append(make_node("MatMul", "y v", "z"))
        weights["v"], outputs = GENERATOR.normal(size=(6, 2)), ["y", "z"]
    else:
        weights["f"] = GENERATOR.uniform(0.5, 2, (5, 1))
    assert "Mul" in same(make(nodes, {"x": inputs}, outputs, weights), inputs)

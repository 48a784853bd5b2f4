import numpy as np

import lowbit
import networks
from graphs import make, make_node
from lowbit.data.images import open_images
from lowbit.quantization.passes.sensitivity import LEAST_DISTANCE, sensitivities
from lowbit.quantization.solving.effort import EFFORTS


def two_heads(scale=1.0):
    """A trunk and two heads that are alike, the second of which gives values `scale` times as large."""
    generator = np.random.default_rng(3)
    trunk, head = generator.normal(size=(8, 3, 3, 3)) / 5, generator.normal(size=(6, 8, 1, 1)) / 3
    weights = {"trunk": trunk, "one": head, "two": scale * head[::-1]}
    weights |= {f"{name}.bias": np.zeros(6) for name in ("one", "two")}
    nodes = [
        make_node("Conv", "x trunk", "t", pads=[1] * 4, name="trunk"),
        make_node("Relu", "t", "r"),
        make_node("Conv", "r one one.bias", "first", name="one"),
        make_node("Conv", "r two two.bias", "second", name="two"),
    ]
    return lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["first", "second"], weights))


def costs(model):
    images = open_images(networks.inputs(40), None)
    found = sensitivities(model, images, ["trunk", "one", "two"], EFFORTS["fast"])
    return {node: each.cost for node, each in found.items()}


def test_an_error_in_any_output_costs_something():
    found = costs(two_heads())
    assert 0.5 < found["two"] / found["one"] < 2
    assert found["two"] > 1e3 * LEAST_DISTANCE


def test_large_outputs_do_not_count_for_more_than_small_ones():
    """The cost of a unit of error falls with the square of the values that it is added to."""
    ordinary, large = costs(two_heads()), costs(two_heads(scale=30.0))
    expected = ordinary["two"] / ordinary["one"] / 30**2
    np.testing.assert_allclose(large["two"] / large["one"], expected, rtol=0.2)

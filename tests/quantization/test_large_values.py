"""Networks whose values are finite, and whose squares float32 does not hold: unlikely, and no reason to fail."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node

# As on the command line.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
RECIPES = ("int8", "int4", "icluster4", "a16w4", "linear4", "cluster3", "block4")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_calibrated_recipe_takes_values_whose_squares_overflow(recipe):
    random = np.random.default_rng(0)
    weights = {"w": 1e22 * random.normal(size=(4, 3, 3, 3)), "v": random.normal(size=(40, 4, 1, 1))}
    nodes = [make_node("Conv", "x w", "c"), make_node("Relu", "c", "r"), make_node("Conv", "r v", "y")]
    model = lowbit.load(
        make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], {name: array.astype(np.float32) for name, array in weights.items()})
    )
    images = {"x": random.normal(size=(8, 3, 8, 8)).astype(np.float32)}
    quantized = lowbit.quantize(model, recipe, calibration=images, effort="fast")
    assert all(np.isfinite(codes.decode()).all() for codes in quantized.graph.weights.values())

"""The recipe that fills a size: the widest that fits with its own extra bits, and what is left in small layers."""

import pytest

from lowbit.quantization.rate.fixed import recipe_filling

WEIGHTS = 8000


def size_of(recipe):
    """As if codes took all their bits, and all else 1,000 bytes."""
    extra = recipe.extra_bits if recipe.bits < 8 else 0.0
    return 1000 + round(WEIGHTS * (recipe.bits + extra) / 8)


@pytest.mark.parametrize(
    ("most", "name", "extra"),
    [
        (5400, "linear4", 0.4),  # exactly what it takes
        (5399, "linear3", 1.3),  # a byte less
        (6000, "linear4", 0.8),
        (9000, "linear8", None),
        (99000, "linear8", None),
        (3400, "linear2", 0.4),
        (3000, "linear2", 0.0),  # without extra bits it fits
    ],
)
def test_the_widest_that_fits_and_the_rest_in_small_layers(most, name, extra):
    recipe = recipe_filling("linear", most, WEIGHTS, size_of)
    assert recipe.name == name
    assert size_of(recipe) <= most
    if extra is not None:
        assert recipe.extra_bits == pytest.approx(extra, abs=0.1)


def test_nothing_fits():
    assert recipe_filling("linear", 2999, WEIGHTS, size_of) is None
    assert recipe_filling("cluster", 2999, WEIGHTS, size_of).name == "cluster1"


def test_where_more_extra_bits_than_by_default_take_more_than_they_should_the_default_stays():
    def steep(recipe):
        return size_of(recipe) + (5000 if recipe.extra_bits > 0.5 else 0)

    recipe = recipe_filling("linear", 6000, WEIGHTS, steep)
    assert (recipe.name, recipe.extra_bits) == ("linear4", 0.4)

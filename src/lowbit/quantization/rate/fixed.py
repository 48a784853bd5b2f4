"""The recipe of fixed width whose archive fills a size: what the search for a size has to be better than.

Of a family the widest recipe is taken whose archive fits, and what is left goes to small layers (`planning.bits`): that
is worth more than a wider recipe without extra bits. What an archive will take is known from plain codes, without
images: rounding adds 2 to 4 % (MobileNetV2-0.35, 3 and 4 bits).
"""

import math
from collections.abc import Callable

from lowbit.quantization.planning.recipes import RECIPES, Recipe, parse_recipe

WIDEST = 8  # bits of recipes
FILLED = 0.965  # share of the size that the plain codes of a recipe may fill with more extra bits than by default


def recipe_filling(family: str, most: float, weights: int, size_of: Callable[[Recipe], int]) -> Recipe | None:
    """The recipe whose archive takes at most so many bytes and leaves few of them; None if all take more.

    Args:
        family: `linear`, `cluster`, `int` or `icluster`.
        most: bytes.
        weights: of the network.
        size_of: bytes of the archive of a recipe.
    """
    widths = RECIPES[family][0]
    least, widest = widths[0], min(WIDEST, widths[-1])
    for bits in range(max(least, min(widest, math.ceil(8 * most / max(1, weights)))), least - 1, -1):
        recipe = parse_recipe(f"{family}{bits}")
        taken = size_of(recipe)
        if taken > most:
            continue
        extra = 8 * (FILLED * most - taken) / max(1, weights)
        if bits >= recipe.widest or extra <= 0:
            return recipe
        wider = parse_recipe(recipe, extra_bits=min(recipe.widest - bits, recipe.extra_bits + extra))
        return wider if size_of(wider) <= most else recipe
    narrowest = parse_recipe(f"{family}{least}", extra_bits=0)
    return narrowest if size_of(narrowest) <= most else None

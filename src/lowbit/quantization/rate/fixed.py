"""The recipe of fixed width whose archive fills a size: what the search for a size has to be better than.

Of a family the widest recipe is taken whose archive fits, and what is left goes to small layers (`planning.bits`). What
an archive will take is known from plain codes, without images: rounding changes it by 2 % (MobileNetV2-0.35, 4 bits).
"""

import math
from collections.abc import Callable

from lowbit.quantization.planning.recipes import RECIPES, Recipe, parse_recipe

WIDEST = 8  # bits of small layers


def recipe_filling(family: str, most: float, weights: int, size_of: Callable[[Recipe], int]) -> Recipe | None:
    """The recipe whose archive takes at most so many bytes and leaves the fewest of them; None if all take more.

    Args:
        family: `linear` or `cluster`.
        most: bytes.
        weights: of the network.
        size_of: bytes of the archive of a recipe.
    """
    least = RECIPES[family][0][0]
    for bits in range(max(least, min(WIDEST, math.ceil(8 * most / max(1, weights)))), least - 1, -1):
        recipe = _with_extra(family, bits, 0.0)
        bare = size_of(recipe)
        if bare > most:
            continue
        extra = min(WIDEST - bits, 8 * (most - bare) / max(1, weights))
        if bits == WIDEST or extra <= 0:
            return recipe
        filled = _with_extra(family, bits, extra)
        taken = size_of(filled)
        if taken <= most:
            return filled
        filled = _with_extra(family, bits, extra * (most - bare) / (taken - bare))
        return filled if size_of(filled) <= most else recipe
    return None


def _with_extra(family: str, bits: int, extra: float) -> Recipe:
    return parse_recipe(f"{family}{bits}", extra_bits=extra if bits < WIDEST else None)

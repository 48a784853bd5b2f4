"""Which steps are tried between plain codes and the file: their names, and what recipe and effort take by themselves.

What a step does is in `quantization.passes.steps`.
"""

from collections.abc import Sequence

from lowbit.errors import SchemeError
from lowbit.formats.quantized_graph import UINT8
from lowbit.quantization.planning.recipes import AUTO_RANGES, Recipe
from lowbit.schemes.half import Half

# In the order in which they are taken.
EXACT_INPUT = "input as image bytes"
EQUALIZATION = "equalization"
RANGES = "narrower ranges"
BIAS = "bias correction"
ROUNDING = "rounding and bias correction"
# What `--steps` calls them -> what the plan calls them, in the same order.
STEP_NAMES: dict[str, str] = {
    "exact-input": EXACT_INPUT,
    "equalization": EQUALIZATION,
    "ranges": RANGES,
    "bias": BIAS,
    "rounding": ROUNDING,
}
# Weight-only recipes: up to how many bits per weight a step is worth its time.
EQUALIZATION_MAX_BITS = 4
ROUNDING_MAX_BITS = 8
# Integer recipes: from how many bits per weight the input is taken as bytes.
EXACT_INPUT_MIN_BITS = 7


def default_steps(recipes: Sequence[Recipe], effort: str) -> tuple[str, ...]:
    """The steps worth their time for any of the recipes that a plan mixes, in the order in which they are taken."""
    worth = {step for recipe in recipes for step in _default_steps(recipe, effort)}
    return tuple(step for step in STEP_NAMES.values() if step in worth)


def _default_steps(recipe: Recipe, effort: str) -> tuple[str, ...]:
    """The steps worth their time. Those of a higher effort include those of a lower one."""
    if recipe.weights is None:
        return ()
    if isinstance(recipe.weights, Half):
        return (BIAS,)  # of what half precision costs, two thirds are means that rounding moved
    if not recipe.integer or recipe.activations.bits > UINT8.bits:  # where what is lost is lost by the weights
        equalization = (EQUALIZATION,) if recipe.bits <= EQUALIZATION_MAX_BITS else ()
        return (*equalization, ROUNDING) if recipe.bits <= ROUNDING_MAX_BITS else ()
    ranges = (RANGES,) if recipe.ranges == AUTO_RANGES else ()
    # A layer that reads bytes is left out of rounding. That costs narrow weights more than an exact input gains.
    exact = (EXACT_INPUT,) if recipe.bits >= EXACT_INPUT_MIN_BITS and recipe.activations == UINT8 else ()
    if effort == "fast":
        # With one scale per tensor a single layer whose channels differ widely can ruin the network.
        equalization = (EQUALIZATION,) if recipe.weights.per == "tensor" else ()
        return (*exact, *equalization, *ranges, BIAS)
    return (*exact, EQUALIZATION, *ranges, BIAS, ROUNDING)


def named_steps(recipes: Sequence[Recipe], names: Sequence[str]) -> tuple[str, ...]:
    """The steps asked for, in the order in which they are taken.

    Raises:
        SchemeError: no such step, or one that none of the recipes uses.
    """
    quantizes = any(recipe.weights is not None for recipe in recipes)
    integer = any(recipe.integer for recipe in recipes)
    for name in names:
        if name not in STEP_NAMES:
            raise SchemeError(f"unknown step '{name}'.", remedy=f"Choose from: {', '.join(STEP_NAMES)}, or none.")
        unused = STEP_NAMES[name] in (EXACT_INPUT, RANGES) and not integer
        unused |= STEP_NAMES[name] == EXACT_INPUT and all(recipe.activations != UINT8 for recipe in recipes)
        if not quantizes or unused:
            raise SchemeError(
                f"recipe '{recipes[0].name}' does not use step '{name}'.",
                remedy="Omit it." if quantizes else "Omit --steps.",
            )
    return tuple(step for name, step in STEP_NAMES.items() if name in names)

"""Per layer: every recipe that it could get, with real bytes, forecast damage and time; and plans made of choices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lowbit.graph.model import Model
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.planning.rules import RuleLayer
from lowbit.searching.damage import LayerDamage
from lowbit.searching.sizes import RecipeSizes, recipe_sizes
from lowbit.searching.speed import LayerTimes

FLOAT = "float"
WEIGHT_ONLY = (FLOAT, "float16w", *(f"linear{b}" for b in range(2, 17)), *(f"cluster{b}" for b in range(1, 9)))
INTEGER = (*(f"int{b}" for b in range(2, 9)), *(f"icluster{b}" for b in range(1, 8)))
WIDE = tuple(f"a16w{b}" for b in range(4, 9))
UNKNOWN = "linear8"  # of weights whose errors nothing is known of


@dataclass(frozen=True)
class Option:
    """A recipe that a layer could get.

    Attributes:
        recipe: its name.
        family: of the recipe; damage is corrected by family.
        bytes: of the weight in the file, with scales, nodes and bias.
        error: forecast of the layer's output error.
        us: forecast time of its layers in microseconds; 0 where times do not matter.
        integer: whether its layers compute in integers.
    """

    recipe: str
    family: str
    bytes: int
    error: float
    us: float
    integer: bool


@dataclass(frozen=True)
class Menu:
    """All that a network could be made of, with activations of one kind.

    Attributes:
        options: by weight, in execution order.
        damages: forecasts of the layers whose errors something is known of, by weight.
        rest: bytes of a file beside its weights.
        neighbors: pairs of weights with what a conversion between their layers takes, in microseconds.
        rest_us: time of what has no weights, in microseconds.
    """

    options: Mapping[str, tuple[Option, ...]]
    damages: Mapping[str, LayerDamage]
    rest: int
    neighbors: tuple[tuple[str, str, float], ...] = ()
    rest_us: float = 0.0

    @property
    def unknown(self) -> tuple[str, ...]:
        """Weights whose errors nothing is known of: they get 8 bits."""
        return tuple(weight for weight in self.options if weight not in self.damages)

    def picked(self, choice: Mapping[str, str]) -> dict[str, Option]:
        """The options of a choice, by weight."""
        return {
            weight: next(option for option in options if option.recipe == choice[weight])
            for weight, options in self.options.items()
        }

    def bytes_of(self, choice: Mapping[str, str]) -> int:
        """Forecast bytes of the file."""
        return self.rest + sum(option.bytes for option in self.picked(choice).values())

    def us_of(self, choice: Mapping[str, str]) -> float:
        """Forecast time of one inference in microseconds."""
        picked = self.picked(choice)
        conversions = sum(us for a, b, us in self.neighbors if picked[a].integer != picked[b].integer)
        return self.rest_us + conversions + sum(option.us for option in picked.values())

    def damage(self, weight: str, option: Option, tilt: float = 0.0) -> float:
        """What an option in one layer is forecast to cost, not corrected."""
        known = self.damages.get(weight)
        return 0.0 if known is None else known.cost.of(option.error, tilt)

    def damage_by_family(self, choice: Mapping[str, str]) -> dict[str, float]:
        """What all layers are forecast to cost, by family of recipes."""
        parts: dict[str, float] = {}
        for weight, option in self.picked(choice).items():
            parts[option.family] = parts.get(option.family, 0.0) + self.damage(weight, option)
        return {family: damage for family, damage in parts.items() if damage > 0}


def menu(
    model: Model,
    damages: Sequence[LayerDamage],
    recipes: Sequence[str],
    times: LayerTimes | None = None,
    *,
    effort: str,
) -> Menu:
    """Every recipe of every layer.

    Args:
        model: the prepared float model.
        damages: forecasts of layers.
        recipes: names of those that layers may get; float is always one.
        times: of layers, where they matter.
        effort: that candidates are made with.
    """
    parsed = {name: parse_recipe(name) for name in dict.fromkeys((FLOAT, *recipes))}
    sizes = {name: recipe_sizes(model, recipe, effort) for name, recipe in parsed.items()}
    options = {
        each.weight: tuple(_option(each, recipe, sizes[name], times) for name, recipe in parsed.items())
        for each in damages
    }
    if others := [weight for weight in sizes[FLOAT].weights if weight not in options]:
        unknown = sizes.get(UNKNOWN) or recipe_sizes(model, parse_recipe(UNKNOWN), effort)
        options |= {
            weight: (Option(UNKNOWN, "unknown", unknown.weights[weight], 0.0, 0.0, False),) for weight in others
        }
    rest = max(each.rest for each in sizes.values())  # decoding brings tables that all weights share
    neighbors = () if times is None else times.neighbors
    rest_us = 0.0 if times is None else times.rest
    return Menu(options, {each.weight: each for each in damages}, rest, neighbors, rest_us)


def _option(damage: LayerDamage, recipe: Recipe, sizes: RecipeSizes, times: LayerTimes | None) -> Option:
    us = 0.0 if times is None else times.of(damage.weight, integer=recipe.integer)
    family = recipe.name.rstrip("0123456789")
    return Option(recipe.name, family, sizes.weights[damage.weight], damage.error(recipe), us, recipe.integer)


def planned(model: Model, choice: Mapping[str, str], effort: str) -> Plan:
    """The plan of a choice: a recipe for each weight.

    Args:
        model: the prepared float model.
        choice: names of recipes by weight; a weight without one stays float.
        effort: how long the steps may search.
    """

    def searched(layer: RuleLayer) -> str | None:
        return choice.get(layer.weight)

    return plan(model, FLOAT, rules=searched, effort=effort)

"""From a menu to whole networks: the knapsack, with what measured candidates taught."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lowbit.quantization.planning.plan import Plan
from lowbit.searching.candidates import Candidate
from lowbit.searching.choices import Menu, Option
from lowbit.searching.correction import family_factors
from lowbit.searching.knapsack import Conversion, Item, solve_knapsack
from lowbit.searching.limits import LATENCY, SIZE, SearchLimits

DAMAGE = "damage"
RESOURCES = (DAMAGE, SIZE, LATENCY)
SPARE = 0.006  # of a size that is left over before a file has shown what it takes beyond what was weighed
WEIGHED = 5  # times that a choice is weighed, and its size put right
ENOUGH = 0.001  # of a size that may be left over


@dataclass(frozen=True)
class Proposal:
    """A network that is worth making.

    Attributes:
        choice: recipe by weight.
        bytes: forecast.
        damage: forecast, corrected.
        us: forecast time in microseconds.
        gap: of the knapsack's solution.
    """

    choice: Mapping[str, str]
    bytes: int
    damage: float
    us: float
    gap: float


@dataclass(frozen=True)
class Proposals:
    """What a menu offers within limits.

    Attributes:
        menus: one for each kind of activations.
        limits: that every proposal keeps.
        weigh: bytes of the file of a choice, but for what its codes say.
        factors: of forecasts, by family; see `correction`.
        extra_bytes: what mixtures took more than was weighed; None before there is one.
        slowness: measured over forecast time.
    """

    menus: Sequence[Menu]
    limits: SearchLimits
    weigh: Callable[[Mapping[str, str]], int]
    factors: Mapping[str, float] = field(default_factory=dict)
    extra_bytes: int | None = None
    slowness: float = 1.0

    def taught(self, candidates: Sequence[Candidate]) -> "Proposals":
        """The same with what measured candidates teach."""
        menu = self.menus[0]
        choices = [(each, each.choice or uniform_choice(each.plan)) for each in candidates if each.rate is None]
        known = [(each, choice) for each, choice in choices if choice and all(_offers(menu, choice))]
        if not known:
            return self
        parts = [menu.damage_by_family(choice) for _, choice in known]
        factors = family_factors(parts, [each.marks.distance for each, _ in known])
        # Uniform recipes of few bits keep zero points where small layers get more bits, which mixtures do not.
        extra = max((each.bytes - self.weigh(choice) for each, choice in known if each.choice), default=None)
        ratios = [
            1e3 * each.latency_ms / menu.us_of(choice)
            for each, choice in known
            if each.latency_ms is not None and menu.us_of(choice) > 0
        ]
        slowness = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else self.slowness
        return replace(self, factors=factors, extra_bytes=extra, slowness=slowness)

    def least(self, what: str, within: Mapping[str, float], *, tilt: float = 0.0) -> Proposal | None:
        """The network with the least of one thing within limits on others, and within those of the search.

        Args:
            what: `damage`, `size` or `latency`.
            within: limits on the others, in nats or relative error, bytes, and milliseconds.
            tilt: see `Cost.of`.
        """
        found = [proposal for menu in self.menus if (proposal := self._weighed(menu, what, within, tilt)) is not None]
        return min(found, key=lambda each: self._amount(each, what), default=None)

    def _weighed(self, menu: Menu, what: str, within: Mapping[str, float], tilt: float) -> Proposal | None:
        """The least whose file fits, once weighed, and leaves little over: menus are right to a few hundredths."""
        most = min(within.get(SIZE, math.inf), self.limits.max_size or math.inf)
        most *= 1.0 - SPARE if self.extra_bytes is None else 1.0
        room = most - (self.extra_bytes or 0)
        found: list[Proposal] = []
        while len(found) < WEIGHED and (proposal := self._least(menu, what, {**within, SIZE: room}, tilt)) is not None:
            found.append(proposal)
            if not math.isfinite(most) or -ENOUGH * most <= proposal.bytes - most <= 0:
                break
            room -= proposal.bytes - most
        fitting = [each for each in found if each.bytes <= most]
        return min(
            fitting,
            key=lambda each: self._amount(each, what),
            default=min(found, key=lambda each: each.bytes, default=None),
        )

    def _least(self, menu: Menu, what: str, within: Mapping[str, float], tilt: float) -> Proposal | None:
        """The least of a menu within limits, by its own bytes."""
        room = {
            SIZE: within[SIZE] - menu.rest,
            LATENCY: 1e3 * min(within.get(LATENCY, math.inf), self.limits.max_latency_ms or math.inf) / self.slowness
            - menu.rest_us,
            DAMAGE: within.get(DAMAGE, math.inf),
        }
        if min(room.values()) <= 0:
            return None
        limited = [name for name in RESOURCES if name != what and math.isfinite(room[name])]
        weights = list(menu.options)

        def used(weight: str, option: Option, name: str) -> float:
            if name == DAMAGE:
                return self.factors.get(option.family, self._level) * menu.damage(weight, option, tilt)
            return float(option.bytes) if name == SIZE else option.us

        items = [
            Item(
                tuple(used(weight, option, what) for option in menu.options[weight]),
                tuple(tuple(used(weight, option, name) for option in menu.options[weight]) for name in limited),
                tuple(int(option.integer) for option in menu.options[weight]),
            )
            for weight in weights
        ]
        conversions = []
        if LATENCY in (what, *limited):
            places = {weight: place for place, weight in enumerate(weights)}
            conversions = [
                Conversion(
                    places[a],
                    places[b],
                    us if what == LATENCY else 0.0,
                    tuple(us * (name == LATENCY) for name in limited),
                )
                for a, b, us in menu.neighbors
            ]
        packing = solve_knapsack(items, [room[name] for name in limited], conversions)
        if packing is None:
            return None
        choice = {
            weight: menu.options[weight][pick].recipe for weight, pick in zip(weights, packing.picks, strict=True)
        }
        damage = sum(used(weight, option, DAMAGE) for weight, option in menu.picked(choice).items())
        size = self.weigh(choice) + (self.extra_bytes or 0)
        return Proposal(choice, size, damage, self.slowness * menu.us_of(choice), packing.gap)

    @property
    def _level(self) -> float:
        """The factor of families that no file has shown yet."""
        known = list(self.factors.values())
        return math.exp(sum(map(math.log, known)) / len(known)) if known else 1.0

    def _amount(self, proposal: Proposal, what: str) -> float:
        return {DAMAGE: proposal.damage, SIZE: float(proposal.bytes), LATENCY: proposal.us}[what]


def uniform_choice(decision: Plan) -> dict[str, str]:
    """What a uniform recipe comes to, weight by weight: some get more bits. Empty for plain codes, which lose more."""
    if not decision.steps:
        return {}
    return {
        tensor.tensor: f"{tensor.recipe.rstrip('0123456789')}{tensor.given.bits}"
        for tensor in decision.tensors
        if tensor.given is not None and tensor.recipe
    }


def _offers(menu: Menu, choice: Mapping[str, str]) -> list[bool]:
    return [any(option.recipe == choice.get(weight) for option in options) for weight, options in menu.options.items()]

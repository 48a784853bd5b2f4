"""The search: a uniform recipe first, then what the knapsack proposes, measured, corrected and proposed again.

Every round makes two whole files whose plans follow from the rounds before it, so what is found does not depend on how
many workers there are, nor on which of them is quicker. While the least size (or latency) within a drop is looked for,
a round cuts the interval between the least that keeps the drop and the most that does not in three; where the drop that
is to be expected and the measured one, of which chance makes more, tell of other intervals (`Judge.tests`), it halves
both. In the end, and
where only size or latency is limited, it is the forecast that is varied: the cost of each layer leans more or less
towards one that all layers share (`Cost.of`), and whichever serves this network best wins. Where files are archives,
sizes for which bits are allocated take the place of what the knapsack proposes (`searching/rates.py`).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from lowbit.printable import several
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.rate.search import CLOSE_ENOUGH, Search
from lowbit.searching.candidates import Candidate
from lowbit.searching.choices import FLOAT, Menu, menu
from lowbit.searching.damage import layer_damages
from lowbit.searching.judge import GoodEnough
from lowbit.searching.limits import DISTANCE
from lowbit.searching.making import Making
from lowbit.searching.plans import Plans
from lowbit.searching.proposals import DAMAGE, Proposal, Proposals
from lowbit.searching.rates import AHEAD, FILLED, Rate, can_be_allocated, largest_refused, next_sizes
from lowbit.searching.result import amount
from lowbit.searching.uniform import UNIFORM, finest, halfway, small_enough

FIRST_DISTANCES = (0.005, 0.02)  # nats or relative error for each point that may be lost, where the search begins
FARTHER = (4.0, 16.0)  # times as far, where the first ones were all within the limit, or all beyond it
CLOSE = 1.015  # ratio of two sizes between which nothing more is looked for
TILTS = ((0.0, 0.2), (0.0, 0.4), (0.1, 0.6))
Tried = TypeVar("Tried")
A_LITTLE = 0.985  # of the least so far, which another forecast has to do with


@dataclass
class Rounds(Making):
    """One search, and what it has found so far.

    Attributes:
        recipes: that layers may get, by name.
        notes: what whoever asked should know.
    """

    recipes: Mapping[str, Recipe] = field(kw_only=True)
    notes: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Search until nothing more is to be won, or the time is over; candidates so far stay where that is stopped."""
        self.add(self._uniform())
        if self.left < 0:
            self.notes.append("Time was over before anything was forecast: give more of it.")
        elif self.allocates:
            self._archives()
        else:
            self._mixtures()

    @cached_property
    def plans(self) -> Plans:
        """Of recipes and choices."""
        return Plans(self.bench, self.settings.effort)

    @property
    def allocates(self) -> bool:
        """Whether archives are searched whose bits are allocated, which are closer than mixtures of the same size."""
        settings = self.settings
        return settings.archive and not settings.recipes and self.times is None and can_be_allocated(self.bench.model)

    def _archives(self) -> None:
        """Archives whose bits are allocated; in the end uniform recipes that may be smaller still, or as small."""
        allocating = self.bench.allocating(self.settings.effort, self.progress)
        for number in range(self.settings.rounds):
            filled = CLOSE_ENOUGH if self.limits.least == DISTANCE else FILLED
            new = [Rate(most, self.settings.effort, filled) for most in self._sizes(allocating, number)]
            if not new:
                break
            if not self.in_time(1):
                self._out_of_time(number)
                break
            new = new if self.in_time(len(new)) else new[-1:]
            self.add([(f"{len(self.candidates) + place:02d}", None, rate) for place, rate in enumerate(new)])
        while beside := self._beside(0):
            self.add(beside)

    def _sizes(self, allocating: Search, number: int) -> list[int]:
        """Bytes of the archives that come next."""
        most = self.limits.max_size
        if self.limits.least == DISTANCE:
            return [] if most is None or number or most < allocating.least else [most]
        asked = {each.rate.most for each in self.candidates if each.rate is not None}

        def between(good_enough: GoodEnough, count: int) -> list[int]:
            good, own = self._smallest(good_enough), self._allocated(good_enough)
            recipes = self._recipe_sizes(largest_refused(good, own), good)
            room = {"least": allocating.least, "weights": allocating.trials.weights}
            sizes = next_sizes(good, own, count=count, recipes=recipes, **room)
            sizes = sizes if most is None else [max(allocating.least, min(size, most)) for size in sizes]
            return [size for size in dict.fromkeys(sizes) if size not in asked]

        return self._by_all_tests(between)

    def _by_all_tests(self, tried: Callable[[GoodEnough, int], list[Tried]]) -> list[Tried]:
        """What to try next, by a function of a test and a number: two for a test, or one for each if they differ."""
        wanted = [found for test in self.judge.tests if (found := tried(test, 2))]
        if len(wanted) < 2 or wanted[0] == wanted[1]:
            return wanted[0] if wanted else []
        return [each for test in self.judge.tests for each in tried(test, 1)[:1]]

    def _smallest(self, good_enough: GoodEnough) -> int | None:
        """Bytes of the smallest file that is good enough; None if none is."""
        return min((each.bytes for each in self.candidates if good_enough(each)), default=None)

    def _allocated(self, good_enough: GoodEnough) -> dict[int, bool]:
        """Of archives whose bits were allocated, by bytes, whether they are good enough."""
        return {each.bytes: good_enough(each) for each in self.candidates if each.rate is not None}

    def _recipe_sizes(self, low: int | None, high: int | None) -> list[int]:
        """Bytes between two sizes that uniform recipes' files take."""
        if low is None or high is None:
            return []
        size_of = self.plans.recipe_bytes
        names = [name for family in UNIFORM for name in small_enough(self._widths(family), high - 1, size_of)]
        return [size for name in names if (size := size_of(name)) > low]

    def _out_of_time(self, number: int) -> None:
        self.notes.append(f"Time was over after {several(number, 'round')}; more might be found with more of it.")

    def _mixtures(self) -> None:
        """Mixtures of recipes, forecast and composed by the knapsack; uniform recipes wait for no forecast."""
        proposals: Proposals | None = None
        for number in range(self.settings.rounds):
            self.add(self._beside(number))
            if proposals is None:
                if self.left < 0:
                    self._out_of_time(number)
                    break
                proposals = Proposals(self._menus(), self.limits, self.plans.choice_bytes)
            wanted = self._next(proposals.taught(self.candidates), number)
            plans = self._new(wanted)
            if not plans:
                if number >= len(TILTS):
                    break
                continue
            if not self.in_time(len(plans)):
                self._out_of_time(number)
                break
            self.add([(f"{len(self.candidates) + place:02d}", *each) for place, each in enumerate(plans)])

    # What there is from the start

    def _uniform(self) -> list[tuple[str, Proposal | None, Plan]]:
        """Float itself and plain recipes, which take no time: there is an answer before anything is forecast."""
        model = self.bench.model
        effort = self.settings.effort
        names = {FLOAT: FLOAT, **{f"{name}-plain": name for name in ("linear8", "float16w") if name in self.recipes}}
        return [
            (called, None, plan(model, parse_recipe(name), steps=(), effort=effort)) for called, name in names.items()
        ]

    def _beside(self, number: int) -> list[tuple[str, Proposal | None, Plan]]:
        """Uniform recipes with all steps that would be better than what there is: the search is never worse than they.

        Within a size the finest of each family that fits, once; within a drop the one of each family halfway between
        those that keep it and those that do not, if smaller than the best, and not much smaller than an archive whose
        bits were allocated and that is too far from float; where time matters the one in integers.
        """
        if not self.in_time(1):
            return []
        if self.times is not None:
            names: list[str | None] = [name for name in ("int8",) if name in self.recipes and number == 0]
        elif self.limits.least == DISTANCE:
            room: float = self.limits.max_size or 0
            names = [finest(self._widths(family), room, self.plans.recipe_bytes) for family in UNIFORM if number == 0]
        else:
            first, last = self.judge.tests[0], self.judge.tests[-1]
            taken = {each.name: last(each) for each in self.candidates}
            least = self._smallest(last)
            room = min(self.limits.max_size or math.inf, least or math.inf)
            hopeless = (largest_refused(least, self._allocated(first)) or 0) / AHEAD
            names = [
                halfway(self._widths(family), room, self.plans.recipe_bytes, taken, hopeless) for family in UNIFORM
            ]
        known = {self.store.key(each.asked) for each in self.candidates}
        found = [(name, None, self.plans.of_recipe(name)) for name in names if name is not None]
        return [each for each in found if self.store.key(each[-1]) not in known]

    def _widths(self, family: str) -> list[str]:
        """Recipes of a family with at most 8 bits, the narrowest first."""
        own = [each for name, each in self.recipes.items() if name == f"{family}{each.bits}" and each.bits <= 8]
        return [each.name for each in sorted(own, key=lambda each: each.bits)]

    def _menus(self) -> list[Menu]:
        """What layers may get: a menu for each kind of activations."""
        model, data = self.bench.model, self.bench.calibration
        assert data is not None
        recipes = self.recipes
        damages = layer_damages(model, data, recipes, threads=self.bench.threads, progress=self.progress)
        kinds = dict.fromkeys(recipe.activations for recipe in recipes.values() if recipe.integer)
        floats = [name for name, recipe in recipes.items() if not recipe.integer]
        menus = []
        for kind in kinds or (None,):
            of_kind = [name for name, recipe in recipes.items() if recipe.integer and recipe.activations == kind]
            menus.append(menu(model, damages, [*floats, *of_kind], self.times, effort=self.settings.effort))
        if menus[0].unknown:
            names = ", ".join(menus[0].unknown[:3])
            self.notes.append(
                f"{len(menus[0].unknown)} weights get 8 bits, since nothing is known of their errors: {names}."
            )
        return menus

    # What is tried next

    def _next(self, proposals: Proposals, number: int) -> list[Proposal]:
        """Networks that are worth making after what was measured."""
        if self.limits.least == DISTANCE:
            tilts = TILTS[number] if number < len(TILTS) else ()
            return _some(proposals.least(DAMAGE, {}, tilt=tilt) for tilt in tilts)
        what = self.limits.minimize

        def between(good_enough: GoodEnough, count: int) -> list[Proposal]:
            good, bad = self._interval(what, good_enough)
            if good is None or bad is None:
                distances = self._distances(good is not None)[:count]
                return _some(proposals.least(what, {DAMAGE: distance}) for distance in distances)
            low, high = amount(bad, what), amount(good, what)
            if high / low <= CLOSE:
                return []
            shares = [part / (count + 1) for part in range(1, count + 1)]
            return _some(proposals.least(DAMAGE, {what: low ** (1 - share) * high**share}) for share in shares)

        if cuts := self._by_all_tests(between):
            return cuts
        good, _ = self._interval(what, self.judge.tests[-1])
        own = sum(bool(each.choice) for each in self.candidates)
        tilts = TILTS[own % len(TILTS)] if good is not None else ()
        most = {} if good is None else {what: A_LITTLE * amount(good, what)}
        return _some(proposals.least(DAMAGE, most, tilt=tilt) for tilt in tilts if tilt)

    def _interval(self, what: str, good_enough: GoodEnough) -> tuple[Candidate | None, Candidate | None]:
        """Of what the search composed, the least that is good enough, and the most below that which is not."""
        own = [each for each in self.candidates if each.own]
        good = min(filter(good_enough, own), key=lambda each: amount(each, what), default=None)
        below = math.inf if good is None else amount(good, what)
        beyond = [each for each in own if not good_enough(each) and amount(each, what) < below]
        return good, max(beyond, key=lambda each: amount(each, what), default=None)

    def _distances(self, farther: bool) -> list[float]:
        """Distances from float to try where all that was tried is on one side of the limit."""
        own = [each.marks.distance for each in self.candidates if each.choice and each.marks.distance > 0]
        if not own:
            return [share * (self.limits.max_drop or 1.0) for share in FIRST_DISTANCES]
        return [max(own) * times for times in FARTHER] if farther else [min(own) / times for times in FARTHER]

    def _new(self, proposals: Sequence[Proposal]) -> list[tuple[Proposal, Plan]]:
        """Those that were not made yet, as plans."""
        known = {self.store.key(each.asked) for each in self.candidates}
        found = []
        for each in proposals:
            decision = self.plans.of_choice(each.choice)
            if (key := self.store.key(decision)) not in known:
                known.add(key)
                found.append((each, decision))
        return found


def _some(proposals: Iterator[Proposal | None]) -> list[Proposal]:
    return [each for each in proposals if each is not None]

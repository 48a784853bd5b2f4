"""The knapsack is exact: what it picks is what trying everything finds."""

import itertools

import numpy as np
import pytest

from lowbit.searching.knapsack import Conversion, Item, solve_knapsack


def random_case(seed, *, items, choices):
    random = np.random.default_rng(seed)
    drawn = [
        Item(
            tuple(random.uniform(0, 1e5, choices)),
            (tuple(random.uniform(0, 1e-4, choices)), tuple(random.uniform(0, 40, choices))),
            tuple(int(kind) for kind in random.integers(0, 2, choices)),
        )
        for _ in range(items)
    ]
    conversions = [Conversion(i, i + 1, random.uniform(0, 3e4), (0.0, random.uniform(0, 9))) for i in range(items - 1)]
    return drawn, (5e-5 * items, 22.0 * items), conversions


def total(items, conversions, picks):
    changes = [
        each
        for each in conversions
        if items[each.first].kinds[picks[each.first]] != items[each.second].kinds[picks[each.second]]
    ]
    cost = sum(item.cost[j] for item, j in zip(items, picks, strict=True)) + sum(each.cost for each in changes)
    uses = [
        sum(item.uses[r][j] for item, j in zip(items, picks, strict=True)) + sum(each.uses[r] for each in changes)
        for r in range(2)
    ]
    return cost, uses


@pytest.mark.parametrize("seed", range(12))
def test_it_finds_what_trying_everything_finds(seed):
    items, limits, conversions = random_case(seed, items=5, choices=4)
    fitting = []
    for picks in itertools.product(range(4), repeat=5):
        cost, uses = total(items, conversions, picks)
        if all(used <= limit for used, limit in zip(uses, limits, strict=True)):
            fitting.append(cost)
    packing = solve_knapsack(items, limits, conversions)
    assert (packing is None) == (not fitting)
    if packing is not None:
        assert packing.cost == pytest.approx(min(fitting), rel=1e-5)
        assert total(items, conversions, packing.picks)[0] == pytest.approx(packing.cost)
        assert packing.gap <= 1e-5


def test_nothing_fits():
    assert solve_knapsack([Item((1.0, 2.0), ((3.0, 4.0),))], [2.0]) is None


def test_without_limits_each_item_gets_its_cheapest():
    assert solve_knapsack([Item((3.0, 1.0)), Item((0.5,))]).picks == (1, 0)
    assert solve_knapsack([]).picks == ()


def test_equal_choices_and_tiny_costs_are_told_apart():
    items = [Item((4e-9, 1e-9, 1e-9), ((1.0, 2.0, 2.0),)) for _ in range(3)]
    packing = solve_knapsack(items, [5.0])
    assert sorted(packing.picks) == [0, 1, 1]


def test_a_conversion_that_costs_more_than_it_wins_is_not_made():
    items = [Item((5.0, 3.0), (), (0, 1)), Item((2.0, 9.0), (), (0, 1))]
    assert solve_knapsack(items, (), [Conversion(0, 1, 1.0)]).picks == (1, 0)
    assert solve_knapsack(items, (), [Conversion(0, 1, 2.5)]).picks == (0, 0)


def test_the_solver_says_nothing(capfd):
    solve_knapsack([Item((1.0, 2.0), ((1.0, 0.5),))], [0.7])
    assert capfd.readouterr() == ("", "")

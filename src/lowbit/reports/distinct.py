"""Files of a recipe for several engines, shown once where they say the same."""

import dataclasses
from collections.abc import Callable, Sequence

from lowbit.measurement.results import Row


def distinct(rows: Sequence[Row], same: Callable[[Row, Row], bool]) -> list[Row]:
    """Rows without those that say the same as another of their recipe; one that is left alone bears its name."""
    kept: list[Row] = []
    for row in rows:
        if not any(row.recipe == other.recipe and same(row, other) for other in kept):
            kept.append(row)
    recipes = [row.recipe for row in kept]
    return [dataclasses.replace(row, label="") if recipes.count(row.recipe) == 1 else row for row in kept]

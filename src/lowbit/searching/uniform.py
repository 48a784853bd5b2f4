"""Uniform recipes that are tried beside what a search composes: it is never worse than they."""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

UNIFORM = ("linear", "cluster")  # families


def finest(names: Sequence[str], most: float, size_of: Callable[[str], int]) -> str | None:
    """The recipe with the most bits whose file is small enough; None if none is.

    Args:
        names: of one family, the narrowest first.
        most: bytes.
        size_of: bytes of a recipe's file.
    """
    return next((name for name in reversed(names) if size_of(name) <= most), None)


def halfway(
    names: Sequence[str], most: float, size_of: Callable[[str], int], taken: Mapping[str, bool], least: float = 0
) -> str | None:
    """The recipe halfway between those that were taken and those that were not; None if none is left.

    Args:
        names: of one family, the narrowest first.
        most: bytes.
        size_of: bytes of a recipe's file.
        taken: of recipes that were made, whether they are good enough.
        least: bytes up to which no file is good enough.
    """
    refused = max((place for place, name in enumerate(names) if taken.get(name) is False), default=-1)
    enough = min((place for place, name in enumerate(names) if taken.get(name)), default=len(names))
    left = [name for name in small_enough(names[refused + 1 : enough], most, size_of) if size_of(name) > least]
    return left[(len(left) - 1) // 2] if left else None


def small_enough(names: Sequence[str], most: float, size_of: Callable[[str], int]) -> list[str]:
    """Recipes whose files take at most so many bytes; those with more bits than one that takes more are not weighed.

    Args:
        names: of one family, the narrowest first.
        most: bytes.
        size_of: bytes of a recipe's file.
    """
    return list(takewhile(lambda name: size_of(name) <= most, names))

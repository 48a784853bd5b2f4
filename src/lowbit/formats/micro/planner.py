"""Where activations lie in the arena: those that live at the same time may not overlap, all others may.

    greedy by size: the largest tensor first, each at the lowest offset where it overlaps nothing that lives with it

Ties go to the tensor that comes last in the file, as in TensorFlow Lite Micro's `GreedyMemoryPlanner`, so that the two
give the same plan. It is not optimal (the problem is NP-hard), but seldom far from the bound: the largest sum of what
lives at one time.

Source: Pisarchyk & Lee 2020, "Efficient Memory Management for Deep Neural Net Inference" (arXiv 2001.03288), section
5.2 (greedy by size for offset calculation).
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Buffer:
    """Bytes that are needed from one step to another.

    Attributes:
        size: in bytes.
        first: step that fills it.
        last: step that reads it last.
    """

    size: int
    first: int
    last: int


def offsets(buffers: Sequence[Buffer]) -> list[int]:
    """Where each buffer begins; time grows with the square of their number."""
    places = [0] * len(buffers)
    placed: list[tuple[int, int, int]] = []  # (offset, order of arrival, buffer), sorted
    order = sorted(range(len(buffers) - 1, -1, -1), key=lambda index: -buffers[index].size)
    for arrival, index in enumerate(order):
        wanted = buffers[index]
        place = 0
        for begins, _, other in placed:
            old = buffers[other]
            if old.first > wanted.last or old.last < wanted.first:
                continue
            if begins - place >= wanted.size:
                break
            place = max(place, begins + old.size)
        places[index] = place
        bisect.insort(placed, (place, arrival, index))
    return places


def extent(buffers: Sequence[Buffer]) -> int:
    """Bytes from the beginning of the arena to the end of the last buffer."""
    return max((place + buffer.size for place, buffer in zip(offsets(buffers), buffers, strict=True)), default=0)


def fullest_step(buffers: Sequence[Buffer]) -> tuple[int, int]:
    """The step with the largest sum of what lives then, and that sum, below which no plan can be.

    The first of them, if there are several.
    """
    changes: dict[int, int] = {}
    for buffer in buffers:
        changes[buffer.first] = changes.get(buffer.first, 0) + buffer.size
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - buffer.size
    alive = most = step = 0
    for at in sorted(changes):
        alive += changes[at]
        if alive > most:
            most, step = alive, at
    return step, most

"""Archives whose bits are allocated: which sizes a search for an archive tries.

A recipe of fixed width is entropy-coded as it stands. Where bits are allocated (`quantization.rate`), codes are chosen
for what the coder will take for them, and no layer has a width: at one size such an archive is closer to float than any
recipe (docs/decisions/088).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.quantization.passes.layerwise import WIDEST

FIRST_BITS = (3.0, 2.0)  # per weight, where a search for the smallest begins
FARTHER = (1.35, 1.8)  # times as large or small, where the first ones were all on one side of the limit
FILLED = 0.96  # share of a size that is enough while sizes are only steps of a search: mostly that takes one pass
CLOSE = 1 / FILLED  # ratio of two sizes between which nothing more is looked for
AHEAD = 1.15  # times as large an archive may be as a uniform recipe's and still be as far from float, on some networks
NARROW = CLOSE**3  # ratio of two sizes between which there is no room for two archives


@dataclass(frozen=True)
class Rate:
    """An archive of at most so many bytes whose bits are allocated; small networks have gaps, and may take more.

    Attributes:
        most: bytes.
        effort: that its codes are chosen with.
        filled: share of the bytes from which it is taken.
    """

    most: int
    effort: str
    filled: float = FILLED

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"archive_bytes": self.most, "effort": self.effort, "filled": self.filled}


def can_be_allocated(model: Model) -> bool:
    """Whether bits can be weighed against errors in every layer of a network, and there is one."""
    columns = [layer.columns for layer in layers(model)]
    return bool(columns) and max(columns) <= WIDEST


def largest_refused(good: int | None, own: Mapping[int, bool]) -> int | None:
    """Bytes of the largest archive that does not keep the drop, of those smaller than one that does; None without any.

    Args:
        good: bytes of the smallest file that keeps the drop; None if none does.
        own: of archives whose bits were allocated so far, whether they keep it.
    """
    return max((size for size, keeps in own.items() if not keeps and (good is None or size < good)), default=None)


def next_sizes(
    good: int | None,
    own: Mapping[int, bool],
    *,
    least: int,
    weights: int,
    count: int = 2,
    recipes: Sequence[int] = (),
) -> list[int]:
    """Sizes to try next, in bytes; none where nothing is left between what keeps the drop and what does not.

    Args:
        good: bytes of the smallest file that keeps the drop, be it a recipe's; None if none does.
        own: of archives whose bits were allocated so far, whether they keep it.
        least: with every weight zero.
        weights: of the network.
        count: how many at most, one or two.
        recipes: bytes of archives of uniform recipes. One of these is asked for in place of a size near it: if the
            archive keeps the drop, the recipe's is not needed, and if it does not, the recipe's will not either.
    """
    if not own:
        sizes = [round(least + bits * weights / 8) for bits in FIRST_BITS]
        return sizes if good is None else [size for size in sizes if size < good] or [round((least + good) / 2)]
    if good is None:
        return [round(max(own) * times) for times in FARTHER[:count]]
    bad = largest_refused(good, own)
    if bad is not None:
        return _between(bad, good, count, recipes)
    above = good - least  # what can be saved at all
    return [round(least + above / times) for times in FARTHER[:count]] if above > (CLOSE - 1) * least else []


def _between(bad: int, good: int, count: int, recipes: Sequence[int]) -> list[int]:
    """What is to be asked for so that archives come out between two sizes, apart from each other and from both."""
    ratio = good / bad
    if ratio <= CLOSE:
        return []
    shares = (1 / 2,) if count == 1 or ratio <= NARROW else (1 / 3, 2 / 3)
    sizes = []
    for share in shares:
        wanted = 2 / (1 + FILLED) * bad * ratio**share  # an archive fills 96 to 100 % of what it is asked for
        near = [size for size in recipes if abs(math.log(size / wanted)) < math.log(ratio) / 6 and size < good]
        sizes.append(min(near) if near else min(round(wanted), good - 1))
    return list(dict.fromkeys(sizes))

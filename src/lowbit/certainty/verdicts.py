"""A word for each row of a report: whether a file is better or worse than float, the same, or whether one cannot tell.

- `better`: it loses less than nothing.
- `same`: it loses at most one point, with 95 % confidence.
- `worse`: it loses something, and perhaps more than a point. This and `better` have 97.5 % confidence each, so that two
  equal files are told apart in at most 5 % of all cases.
- `cannot tell`: neither; these samples are too few.
"""

from dataclasses import dataclass
from statistics import NormalDist

from lowbit.certainty.certificate import rounded, samples_needed
from lowbit.certainty.paired import Paired, drop_bounds, spread_at

MARGIN = 0.01
CONFIDENCE = 0.95
WORDS = BETTER, SAME, CANNOT_TELL, WORSE = "better", "same", "cannot tell", "worse"


@dataclass(frozen=True)
class Verdict:
    """What samples say of a file.

    Attributes:
        word: `better`, `same`, `worse` or `cannot tell`.
        low: what is lost at least, with 95 % confidence, a share of 1.
        high: what is lost at most, likewise.
        needed: about how many samples would tell; None where they do, or none would.
    """

    word: str
    low: float
    high: float
    needed: int | None = None


def verdict(paired: Paired, *, margin: float = MARGIN) -> Verdict:
    """The verdict of counts. Without labels a file is the same, or one cannot tell: changes may be for the better."""
    low, high = drop_bounds(paired, confidence=CONFIDENCE)
    if not paired.labeled:
        # What changed is at most lost and at most gained.
        word = SAME if high <= margin else CANNOT_TELL
        needed = samples_needed(paired, margin, 1 - CONFIDENCE) if word != SAME and paired.drop < margin else None
        return Verdict(word, -high, high, needed)
    surely = drop_bounds(paired, confidence=(1 + CONFIDENCE) / 2)
    word = word_of((low, high), surely, margin)
    return Verdict(word, low, high, _needed(paired, margin) if word == CANNOT_TELL else None)


def word_of(bounds: tuple[float, float], surely: tuple[float, float], margin: float) -> str:
    """The word for a drop.

    Args:
        bounds: of the drop, each with 95 % confidence.
        surely: the same with 97.5 %.
        margin: what a file that is called the same may lose.
    """
    if surely[1] < 0:
        return BETTER
    return SAME if bounds[1] <= margin else WORSE if surely[0] > 0 else CANNOT_TELL


def _needed(paired: Paired, margin: float) -> int | None:
    """Samples until one of the words can be said, if the drop stays as it is."""
    ways = []
    if paired.drop < margin:
        ways.append(samples_needed(paired, margin, 1 - CONFIDENCE))
    if paired.drop:
        quantile = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        apart = (quantile * spread_at(paired, 0.0) / paired.drop) ** 2
        ways.append(rounded(apart, paired.images))
    known = [way for way in ways if way is not None]
    return min(known) if known else None

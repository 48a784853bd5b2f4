"""Whether a file's drop is within a limit: yes, no or cannot tell, with the confidence, in a sentence.

Several candidates may be looked at on the same images in two ways. With `looks`, the error allowed is shared among them
(Bonferroni), and any of them may be chosen. Or they are put in an order that these images had no part in, the most
cautious first, and are certified one after the other until one is not: then none of the error has to be shared, because
a wrong certificate needs the first wrong one to be issued (`certify_in_order`).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from lowbit.certainty.bootstrap import Bounded, mean_bounds, metric_bounds
from lowbit.certainty.paired import Paired, allowed_error, drop_bounds, spread_at
from lowbit.certainty.spread import Spread
from lowbit.errors import DataError

Array = np.ndarray[Any, np.dtype[np.float64]]
Evidence = Paired | Spread

HOLDS = "holds"
ACCURACY, CHANGED = "points of accuracy", "percent of predictions"
NEVER = 10_000_000  # more samples than anybody would collect: the drop is as large as the limit
NO_GAP = 1e-9


@dataclass(frozen=True)
class Certificate:
    """How sure it is that a file loses at most so much. All but the counts are shares of 1.

    Attributes:
        limit: what may be lost.
        drop: what is lost on these samples.
        low: what is lost at least, with the confidence.
        high: what is lost at most, with the confidence.
        confidence: that the certificate is right, for all candidates looked at together.
        images: samples that it rests on.
        looks: number of candidates looked at on them that it is corrected for.
        holds: True if the limit is met, False if it is exceeded, None if these samples cannot tell.
        needed: about how many samples would tell, if further ones are like these; None if it is settled or as much is
            lost as may be, which no number of samples tells apart.
        measure: what is lost, in hundredths.
    """

    limit: float
    drop: float
    low: float
    high: float
    confidence: float
    images: int
    looks: int
    holds: bool | None
    needed: int | None
    measure: str = ACCURACY

    def to_json(self) -> dict[str, Any]:
        """Its attributes and its sentence as plain data."""
        return {**asdict(self), "sentence": self.sentence()}

    def sentence(self) -> str:
        """What the certificate says, in one or two sentences."""
        changes = self.measure == CHANGED
        limit, seen, low, high = (_hundredths(x) for x in (self.limit, self.drop, self.low, self.high))
        how = f"with {100 * self.confidence:g} % confidence"
        if self.looks > 1:
            how += f" for all {self.looks} candidates looked at"
        verb = "change" if changes else "are lost"
        on = f"{seen} on these {self.images:,} samples"
        if self.holds:
            return f"At most {limit} {self.measure} {verb}, {how}: {on}, at most {high} on others like them."
        if self.holds is False:
            return f"More than {limit} {self.measure} {verb}, {how}: {on}, at least {low} on others like them."
        text = (
            f"These {self.images:,} samples cannot tell whether at most {limit} {self.measure} {verb}: {seen} on them, "
            f"{low} to {high} on others like them, {how}; one sample is {100 / self.images:.2g}."
        )
        if self.needed is None:
            return f"{text} More samples would hardly tell either: what is seen is as much as is allowed."
        return f"{text} About {self.needed:,} samples would tell."


def certify(evidence: Evidence, limit: float, *, confidence: float = 0.95, looks: int = 1) -> Certificate:
    """Certify a drop in accuracy; without labels the share of changed predictions, which no drop exceeds.

    Args:
        evidence: what was lost and gained, on samples that had no part in making the file; for other tasks than
            classification how much the drop of their metric varies, which bounds it only about (`Spread`).
        limit: largest drop, a share of 1: 0.005 is half a point.
        confidence: that the certificate is right.
        looks: number of candidates looked at on these samples, from which this one may have been chosen.

    Raises:
        DataError: a limit or a confidence that is none.
    """
    if isinstance(evidence, Spread):
        bounded = Bounded(evidence.samples, evidence.drop, *evidence.bounds(allowed_error(confidence, looks)))
        return _of_score(bounded, limit, confidence=confidence, looks=looks, measure=evidence.measure)
    bounds = drop_bounds(evidence, confidence=confidence, looks=looks)
    return certificate(evidence, limit, bounds, confidence=confidence, looks=looks)


def certify_in_order(candidates: Iterable[Evidence], limit: float, *, confidence: float = 0.95) -> list[Certificate]:
    """Certify candidates one after the other, until one does not hold; the last one that holds may be chosen.

    Args:
        candidates: in an order that these samples had no part in, the most cautious first; read one at a time.
        limit: largest drop, a share of 1.
        confidence: that all certificates are right.
    """
    certificates = []
    for evidence in candidates:
        certificates.append(certify(evidence, limit, confidence=confidence))
        if not certificates[-1].holds:
            break
    return certificates


def certificate(
    paired: Paired, limit: float, bounds: tuple[float, float], *, confidence: float, looks: int
) -> Certificate:
    """The certificate that bounds of the drop make."""
    _check(limit)
    holds = _settled(bounds, limit)
    needed = samples_needed(paired, limit, allowed_error(confidence, looks)) if holds is None else None
    measure = ACCURACY if paired.labeled else CHANGED
    return Certificate(limit, paired.drop, *bounds, confidence, paired.images, looks, holds, needed, measure)


def certify_scores(
    differences: Array | Callable[[Any], float],
    limit: float,
    *,
    samples: int | None = None,
    confidence: float = 0.95,
    looks: int = 1,
    measure: str = "points",
) -> Certificate:
    """Certify the drop of another task's score, by bootstrap over samples (`lowbit.certainty.bootstrap`).

    Args:
        differences: [samples] float's score minus the file's, each -1..1, if the task's score is their mean; else a
            function that gives the drop of a sample drawn with replacement, from its indices.
        limit: largest drop, a share of 1.
        samples: number of samples, if `differences` is a function.
        confidence: that the certificate is right.
        looks: number of candidates looked at on these samples.
        measure: what is lost, in hundredths, such as `points of mAP`.

    Raises:
        DataError: too few samples, or a limit or a confidence that is none.
    """
    alpha = allowed_error(confidence, looks)
    if callable(differences):
        if samples is None:
            raise DataError("a score that is no mean needs the number of samples.", remedy="Give samples=.")
        bounded = metric_bounds(differences, samples, alpha)
    else:
        bounded = mean_bounds(np.asarray(differences, np.float64), alpha)
    return _of_score(bounded, limit, confidence=confidence, looks=looks, measure=measure)


def _of_score(bounded: Bounded, limit: float, *, confidence: float, looks: int, measure: str) -> Certificate:
    """The certificate that bounds of a score's drop make."""
    _check(limit)
    bounds = bounded.low, bounded.high
    holds, gap = _settled(bounds, limit), limit - bounded.drop
    needed = None
    if holds is None and abs(gap) > NO_GAP:
        half = (bounded.high - bounded.drop) if gap > 0 else (bounded.drop - bounded.low)
        needed = rounded(bounded.samples * (half / gap) ** 2, bounded.samples)
    return Certificate(limit, bounded.drop, *bounds, confidence, bounded.samples, looks, holds, needed, measure)


def samples_needed(paired: Paired, limit: float, alpha: float) -> int | None:
    """About how many samples would tell on which side of a limit the drop is, if it stays as it is.

    So many that the score statistic, normal by then, reaches its quantile; and to hold, at least as many as it takes
    where none is lost.
    """
    gap = limit - paired.drop
    if abs(gap) < NO_GAP:
        return None
    samples = (NormalDist().inv_cdf(1 - alpha) * spread_at(paired, limit) / gap) ** 2
    if gap > 0:
        samples = max(samples, math.log(alpha) / math.log1p(-limit))
    return rounded(samples, paired.images)


def rounded(samples: float, have: int) -> int | None:
    """A number of samples up to two digits, and more than there are; None where nobody would collect as many."""
    samples = max(samples, have + 1)
    if samples > NEVER:
        return None
    digit = int(10 ** max(0, math.floor(math.log10(samples)) - 1))
    return math.ceil(samples / digit) * digit


def _settled(bounds: tuple[float, float], limit: float) -> bool | None:
    low, high = bounds
    return True if high <= limit else False if low > limit else None


def _check(limit: float) -> None:
    if not 0 < limit < 1:
        raise DataError(f"a limit of {limit:g} is no share of 1.", remedy="Give 0.005 for half a point.")


def _hundredths(share: float) -> str:
    """A share of 1 as points; no more digits than a hundredth of a point."""
    text = f"{100 * share:.2f}"
    return "0.00" if text == "-0.00" else text

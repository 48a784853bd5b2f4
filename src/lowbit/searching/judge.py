"""Which candidate is taken: what samples that choose say, and what samples that certify say of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lowbit.certainty.certificate import Certificate, certify, certify_in_order
from lowbit.certainty.paired import Paired
from lowbit.data.dataset import Dataset
from lowbit.searching.candidates import Candidate
from lowbit.searching.limits import SearchLimits
from lowbit.searching.result import amount

PERCENT = 100.0

GoodEnough = Callable[[Candidate], bool]


@dataclass(frozen=True)
class Division:
    """Evaluation samples divided.

    Attributes:
        choosing: samples that candidates are chosen on.
        certifying: samples that nothing was chosen on; None where there are too few to set some apart.
    """

    choosing: Dataset
    certifying: Dataset | None

    @property
    def sentence(self) -> str:
        """Which samples do what."""
        if self.certifying is None:
            return f"{self.choosing.count:,} samples both chose and certify; the certificate is corrected for that."
        return f"{self.choosing.count:,} samples chose; {self.certifying.count:,} others certify."


def divided(data: Dataset, limits: SearchLimits, *, seed: int) -> Division:
    """Half of the samples are set apart to certify, if so many could: where none of them is lost.

    Args:
        data: evaluation samples.
        limits: of the search.
        seed: of the choice.
    """
    half = data.count // 2
    if limits.max_drop is None or half < 1 or limits.max_drop >= PERCENT:
        return Division(data, None)
    possible = certify(Paired(half, 0, 0), limits.max_drop / PERCENT, confidence=limits.confidence)
    if not possible.holds:
        return Division(data, None)
    choosing, certifying = data.apart(half, seed=seed)
    return Division(choosing, certifying)


@dataclass(frozen=True)
class Judge:
    """What keeps the limits.

    Attributes:
        limits: of the search.
        apart: whether other samples certify than those that choose.
    """

    limits: SearchLimits
    apart: bool

    def fits(self, candidate: Candidate) -> bool:
        """Whether size and latency are within their limits."""
        small = self.limits.max_size is None or candidate.bytes <= self.limits.max_size
        most = self.limits.max_latency_ms
        return small and (most is None or (candidate.latency_ms is not None and candidate.latency_ms <= most))

    def keeps(self, candidate: Candidate) -> bool:
        """Whether a candidate keeps the limit of the drop on the samples that choose."""
        return self.limits.max_drop is None or candidate.marks.drop <= self.limits.max_drop

    def accepts(self, candidate: Candidate) -> bool:
        """Whether to go on towards less, and not back: it keeps the limit but for chance.

        What counts is the drop that is to be expected, of which chance makes less than of what is measured: of 186
        samples one is more than half a point. Where other samples certify, those that choose have to be as sure as
        they: what is only just within the limit would mostly not be certified.
        """
        most, evidence = self.limits.max_drop, candidate.marks.evidence
        if most is None or evidence is None or not self.apart:
            return most is None or candidate.marks.expected <= most
        return bool(certify(evidence, most / PERCENT, confidence=self.limits.confidence).holds)

    @property
    def tests(self) -> tuple[GoodEnough, ...]:
        """By what the least that keeps the drop is looked for, side by side; what passes the last is an answer.

        The drop that is to be expected tells how small a file can be, the measured one whether chance lets it be.
        """
        return (self.accepts,) if self.apart else (self.accepts, self.keeps)

    def best(self, candidates: Sequence[Candidate]) -> Candidate:
        """The one to show first: of those that keep all limits the least, else the nearest to keeping them."""
        keeping = [each for each in candidates if self.fits(each) and self.keeps(each)]
        if keeping:
            return min(keeping, key=lambda each: (amount(each, self.limits.least), each.bytes, each.marks.distance))
        return min(candidates, key=self._short_by)

    def _short_by(self, candidate: Candidate) -> tuple[float, float]:
        """By how much limits are missed, and the distance."""
        limits, missed = self.limits, 0.0
        for given, most in (
            (candidate.bytes, limits.max_size),
            (candidate.latency_ms, limits.max_latency_ms),
            (max(0.0, candidate.marks.drop), limits.max_drop),
        ):
            if most is not None and given is not None:
                missed += max(0.0, given / most - 1)
        return missed, candidate.marks.distance

    def verdict(self, candidates: Sequence[Candidate]) -> tuple[Candidate, Certificate | None]:
        """The candidate that is taken, and its certificate.

        Where other samples certify, candidates that keep the limits are certified from the most cautious one on, an
        order that those samples had no part in, until one is not: the last that is certified is taken. Else the
        certificate of the best is corrected for all candidates that were looked at.
        """
        best = self.best(candidates)
        most = self.limits.max_drop
        if most is None or best.certified.evidence is None or most >= PERCENT:
            return best, None
        limit, confidence = most / PERCENT, self.limits.confidence
        if not self.apart:
            looks = sum(each.marks.evidence is not None and each.marks.distance > 0 for each in candidates)
            return best, certify(best.certified.evidence, limit, confidence=confidence, looks=max(1, looks))
        keeping = [each for each in candidates if self.fits(each) and self.keeps(each)]
        order = sorted(keeping, key=lambda each: -amount(each, self.limits.least)) or [best]
        known = [(each, seen) for each in order if (seen := each.certified.evidence) is not None]
        certificates = certify_in_order([seen for _, seen in known], limit, confidence=confidence)
        held = [place for place, each in enumerate(certificates) if each.holds]
        place = held[-1] if held else 0
        return known[place][0], certificates[place]

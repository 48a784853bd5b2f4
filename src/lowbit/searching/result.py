"""What a search found: the best file, all others, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lowbit.certainty.certificate import Certificate
from lowbit.files import write_atomically
from lowbit.printable import brief
from lowbit.quantization.planning.plan import Plan
from lowbit.searching.candidates import Candidate
from lowbit.searching.limits import LATENCY, SIZE, SearchLimits

BYTES_PER_MB = 1e6


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: the file that was asked for, or the nearest to it.
        met: whether it keeps all limits on the samples it was measured on.
        certificate: of its drop; None without a limit on the drop, or where nothing tells how far it varies.
        candidates: all that were measured, in the order in which they were made.
        limits: that were asked for.
        measure: what a drop is counted in.
        split: which samples chose and which certify, in a sentence.
        seconds: what the search took.
        interrupted: whether somebody stopped it.
        notes: what whoever asked should know.
        paths: of candidates' files by name, where they were kept.

    >>> limits = lowbit.SearchLimits(max_drop=60, seconds=0.2)
    >>> settings = lowbit.SearchSettings(recipes=("linear8",), effort="fast")
    >>> result = lowbit.search("model.onnx", "test", limits, calibration="photos", settings=settings)
    >>> result.best.bytes == len(result.best.content), result.best in result.candidates
    (True, True)
    """

    best: Candidate
    met: bool
    certificate: Certificate | None
    candidates: tuple[Candidate, ...]
    limits: SearchLimits
    measure: str
    split: str
    seconds: float
    interrupted: bool = False
    notes: tuple[str, ...] = ()
    paths: Mapping[str, Path] = field(default_factory=dict)

    def __repr__(self) -> str:
        best = f"{brief(self.best.name)}: {self.best.bytes:,} bytes, {self.best.marks.drop:.2f} {self.measure} lost"
        return f"<SearchResult {best}, the best of {len(self.candidates):,}>"

    @property
    def plan(self) -> Plan:
        """Of the best."""
        return self.best.plan

    @property
    def front(self) -> tuple[Candidate, ...]:
        """Candidates that no other one beats in size, time and closeness together, the smallest first."""
        return front(self.candidates)

    def save(self, path: Path | str) -> Path:
        """Write the best file, whole or not at all.

        Raises:
            OutputError: the folder is not writable, or the disk is full.
        """
        return write_atomically(path, self.best.content)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        on_front = {each.name for each in self.front}
        return {
            "best": candidate_json(self.best),
            "met": self.met,
            "certificate": None if self.certificate is None else self.certificate.to_json(),
            "split": self.split,
            "measure": self.measure,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "notes": list(self.notes),
            "candidates": [
                {
                    **candidate_json(each),
                    "front": each.name in on_front,
                    "file": str(self.paths[each.name]) if each.name in self.paths else None,
                }
                for each in self.candidates
            ],
        }


def candidate_json(candidate: Candidate) -> dict[str, Any]:
    """A candidate as plain data, without its file."""
    return {
        "name": candidate.name,
        "bytes": candidate.bytes,
        "distance": candidate.marks.distance,
        "drop": candidate.marks.drop,
        "expected_drop": candidate.marks.expected,
        "metric": candidate.marks.metric,
        "latency_ms": candidate.latency_ms,
        "forecast_bytes": candidate.forecast_bytes,
        "forecast_distance": candidate.forecast,
        "seconds": candidate.seconds,
    }


def front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Candidates that no other one beats: it would be no larger, slower or farther from float, and less in one."""

    def figures(each: Candidate) -> tuple[float, float, float]:
        return float(each.bytes), each.latency_ms or 0.0, each.marks.distance

    def beaten(mine: tuple[float, float, float]) -> bool:
        return any(
            other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
            for other in map(figures, candidates)
        )

    kept = [each for each in candidates if not beaten(figures(each))]
    return tuple(sorted(kept, key=lambda each: (each.bytes, each.marks.distance)))


def amount(candidate: Candidate, what: str) -> float:
    """Bytes, milliseconds, or the distance from float."""
    if what == SIZE:
        return float(candidate.bytes)
    return candidate.latency_ms or 0.0 if what == LATENCY else candidate.marks.distance

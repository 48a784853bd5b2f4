"""Finished candidates on disk: each is there whole or not at all, and `--resume` begins with those that are there.

In the folder of a search lie, for every candidate, its file, its plan and a record, in this order; the record is
written last and names the others. A candidate is found again by its key: a hash of its plan, of the model and of all
samples, so that a folder of another search does no harm.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lowbit.certainty.certificate import Evidence
from lowbit.certainty.paired import Paired
from lowbit.certainty.spread import Spread
from lowbit.errors import LowbitError
from lowbit.files import write_atomically
from lowbit.graph.model import Model
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.plan_file import read_plan, write_plan
from lowbit.searching.candidates import Candidate
from lowbit.searching.marks import Marks
from lowbit.searching.rates import Rate

KEY_DIGITS = 12
MOST_RECORD = 1 << 20  # bytes of a record: one that is larger is none of ours


class Store:
    """The candidates of one search.

    Args:
        folder: where they lie; None keeps them in memory only.
        model: the prepared float model.
        circumstances: whatever else decides what a plan comes to, such as hashes of the samples.
        resume: whether those that are there already count.
        ending: of the files' names.
    """

    def __init__(self, folder: Path | None, model: Model, circumstances: str, *, resume: bool, ending: str) -> None:
        self.folder, self.ending = folder, ending
        self._model, self._circumstances, self._resume = model, circumstances, resume

    def key(self, decision: Plan | Rate) -> str:
        """What a plan's candidate is called."""
        text = json.dumps(decision.to_json(), sort_keys=True) + self._model.sha256 + self._circumstances
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]

    def path(self, decision: Plan | Rate) -> Path | None:
        """Where a plan's file is, or will be."""
        return None if self.folder is None else self.folder / f"{self.key(decision)}{self.ending}"

    def plan_path(self, decision: Plan | Rate) -> Path | None:
        """Where the plan itself is."""
        return None if self.folder is None else self.folder / f"{self.key(decision)}.plan.json"

    def add(self, candidate: Candidate) -> None:
        """Write a candidate that is finished.

        Raises:
            OutputError: the folder is not writable, or the disk is full.
        """
        path, plan_path = self.path(candidate.asked), self.plan_path(candidate.asked)
        if path is None or plan_path is None or self.folder is None:
            return
        record_path = self.folder / f"{self.key(candidate.asked)}.json"
        for written in (path, plan_path, record_path):
            if written.is_symlink():  # nobody gave it this name but who knows how candidates are called
                written.unlink()
        write_atomically(path, candidate.content)
        write_plan(candidate.plan, self._model, plan_path)
        record = {
            "sha256": hashlib.sha256(candidate.content).hexdigest(),
            "marks": asdict(candidate.marks),
            "certified": asdict(candidate.certified),
            "latency_ms": candidate.latency_ms,
            "seconds": candidate.seconds,
        }
        write_atomically(record_path, json.dumps(record, indent=1) + "\n")

    def find(self, name: str, choice: Mapping[str, str], decision: Plan | Rate) -> Candidate | None:
        """The candidate of a plan that was finished before; None without `resume`, or if anything of it is amiss."""
        path = self.path(decision)
        if not self._resume or path is None or self.folder is None:
            return None
        try:
            place = self.folder / f"{self.key(decision)}.json"
            if not (place.is_file() and path.is_file()) or place.stat().st_size > MOST_RECORD:
                return None
            record: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != record["sha256"]:
                return None
            rate = decision if isinstance(decision, Rate) else None
            return Candidate(
                name,
                choice,
                self._plan(decision),
                content,
                _marks(record["marks"]),
                _marks(record["certified"]),
                latency_ms=record["latency_ms"],
                seconds=float(record["seconds"]),
                rate=rate,
            )
        except (OSError, ValueError, KeyError, TypeError, LowbitError):
            return None

    def _plan(self, decision: Plan | Rate) -> Plan:
        """The plan of a candidate: what it was made from, or the widths that came out."""
        if not isinstance(decision, Rate):
            return decision
        path = self.plan_path(decision)
        assert path is not None
        return read_plan(path, self._model)


def _marks(data: Mapping[str, Any]) -> Marks:
    evidence: Evidence | None = None
    if (known := data["evidence"]) is not None:
        evidence = Paired(**known) if "lost" in known else Spread(**known)
    distance, drop, expected, metric = (float(data[name]) for name in ("distance", "drop", "expected", "metric"))
    return Marks(distance, drop, expected, evidence, metric)

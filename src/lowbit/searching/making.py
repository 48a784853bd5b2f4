"""Candidates made and measured, one after the other or side by side, while there is time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lowbit.formats.onnx import archive
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.inputs import first_batch
from lowbit.measurement.speed import latency
from lowbit.progress import SILENT, Progress
from lowbit.quantization.planning.plan import Plan
from lowbit.searching.candidates import Bench, Candidate, Made
from lowbit.searching.judge import Judge
from lowbit.searching.limits import SearchLimits, SearchSettings
from lowbit.searching.proposals import Proposal
from lowbit.searching.rates import Rate
from lowbit.searching.speed import LayerTimes
from lowbit.searching.store import Store
from lowbit.searching.workers import Alone, Cluster, Processes

TIMED_RUNS = 60


@dataclass
class Making:
    """The candidates of one search.

    Attributes:
        bench: what candidates are made with and measured on.
        limits: what is asked for.
        settings: how to search.
        store: where finished candidates are kept.
        workers: who makes them.
        judge: of what is taken.
        progress: told as the work goes on.
        times: of layers and conversions, where they matter.
        candidates: all that were measured.
        started: when the search began, by the monotonic clock.
    """

    bench: Bench
    limits: SearchLimits
    settings: SearchSettings
    store: Store
    workers: Alone | Processes | Cluster
    judge: Judge
    progress: Progress = SILENT
    times: LayerTimes | None = None
    candidates: list[Candidate] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, wanted: Sequence[tuple[str, Proposal | None, Plan | Rate]]) -> None:
        """Make and measure candidates, those that were finished before taken from the store.

        Where they are made one after the other, those for which no time is left are not, but for the first, and for
        plain ones, which take seconds.
        """
        found = {
            name: self.store.find(name, {} if proposal is None else proposal.choice, decision)
            for name, proposal, decision in wanted
        }
        missing = [each for each in wanted if found[each[0]] is None]
        made = self.workers.make([decision for _, _, decision in missing])
        longest = 0.0
        for name, proposal, decision in wanted:
            candidate = found[name]
            if candidate is None:
                if longest > max(0.0, self.left) and isinstance(self.workers, Alone):
                    continue
                started = time.monotonic()
                candidate = self._candidate(name, proposal, decision, next(made))
                candidate = replace(self._timed(candidate), seconds=time.monotonic() - started)
                self.store.add(candidate)
                longest = max(longest, candidate.seconds if candidate.plan.steps else 0.0)
            elif proposal is not None:
                candidate = replace(candidate, forecast=proposal.damage, forecast_bytes=proposal.bytes)
            self.candidates.append(candidate)
            self._tell(candidate)

    def _candidate(self, name: str, proposal: Proposal | None, decision: Plan | Rate, made: Made) -> Candidate:
        if isinstance(decision, Rate):
            assert made.plan is not None
            return Candidate(name, {}, made.plan, made.content, made.marks[0], made.marks[-1], rate=decision)
        choice = {} if proposal is None else proposal.choice
        forecast = (0, 0.0) if proposal is None else (proposal.bytes, proposal.damage)
        return Candidate(name, choice, decision, made.content, made.marks[0], made.marks[-1], *forecast)

    def _timed(self, candidate: Candidate) -> Candidate:
        """With its latency, where that matters."""
        if self.times is None:
            return candidate
        conditions = Conditions(engine=self.settings.engine, runs=TIMED_RUNS)
        inputs = {candidate.name: first_batch(self.bench.exams[0].data, conditions.batch)}
        content = archive.unpack(candidate.content) if self.bench.archive else candidate.content
        measured = latency({candidate.name: content}, inputs, conditions)
        return replace(candidate, latency_ms=measured[candidate.name].median_ms)

    def _tell(self, candidate: Candidate) -> None:
        """One line for each candidate: what it is, and which is the best so far."""
        best = self.judge.best(self.candidates)
        time_of = "" if candidate.latency_ms is None else f", {candidate.latency_ms:.2f} ms"
        verdict = "best so far" if best is candidate else f"best so far: {best.name} ({best.bytes:,} bytes)"
        self.progress.note(
            f"{candidate.name}: {candidate.bytes:,} bytes{time_of}, {candidate.marks.drop:+.2f} lost, distance "
            f"{candidate.marks.distance:.2g}; {verdict}; {max(0.0, self.left):.0f} s left"
        )

    def in_time(self, count: int) -> bool:
        """Whether another round can be expected to end in time."""
        own = [each.seconds for each in self.candidates if each.own or each.plan.steps]
        return self.left > 0 if not own else self.left > max(own) * count

    @property
    def left(self) -> float:
        """Seconds until the time is over."""
        return self.limits.seconds - (time.monotonic() - self.started)

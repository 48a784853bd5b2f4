"""The candidate that is closest to float so far: every step offers its own, and images that judge decide."""

import time
from collections.abc import Iterator
from dataclasses import replace

from lowbit.data.dataset import Dataset
from lowbit.graph.model import Model
from lowbit.progress import Progress, tell_detail
from lowbit.quantization.passes.candidate import Candidate
from lowbit.quantization.passes.steps import STEPS, StepData, StepResult
from lowbit.quantization.passes.validation import Validation, runnable
from lowbit.quantization.planning.steps import EQUALIZATION

THOROUGH = ("balanced", "best")  # efforts of a search at effort `best`: it never ends with less than `balanced` gives


class Selection:
    """What the steps have brought.

    Args:
        model: the prepared float model.
        first: where the steps begin.
        fitting: images that candidates are fitted to.
        judging: images that they are judged on.
        threads: threads of the runtime; 0 leaves it to the runtime.
        every: both, if they are parts of one set.

    Attributes:
        current: the candidate to go on with.
        results: every candidate that was tried.
    """

    def __init__(
        self,
        model: Model,
        first: Candidate,
        fitting: Dataset,
        judging: Dataset,
        threads: int,
        *,
        every: Dataset | None = None,
    ) -> None:
        self.current = first
        self._other: Candidate | None = None  # equalized where `current` is not, or the other way round
        self._undecided = False  # which of the two is to be gone on with
        self.results: list[StepResult] = []
        self._model, self._data, self._threads = model, StepData(fitting, every or fitting), threads
        self._validation = Validation(model, judging, threads=threads)
        self._fitted = self._validation if judging is fitting else Validation(model, fitting, threads=threads)
        self._distances = self._validation.distances(first.graph)

    def take(self, name: str, progress: Progress) -> None:
        """Take a step, and keep what it makes if it is closer to float."""
        for place, begin in enumerate(self._beginnings(name)):
            started = time.monotonic()
            candidate = STEPS[name].take(begin, self._data, self._threads, progress)
            self._judge(name, candidate, started, doubt=place == 0)
            tell_detail(progress, _told(self.results[-1]))

    def _beginnings(self, name: str) -> Iterator[Candidate]:
        """What a step begins from; those that it comes to later depend on whether the first was kept."""
        before = self.current
        if not STEPS[name].searches:
            yield before
            return
        effort = before.plan.effort
        first = THOROUGH[0] if effort == THOROUGH[-1] else effort
        yield _at(before, first)
        # What equalization wins before rounding it may lose behind it, and the other way round.
        other = self._other
        if other is not None and (self._undecided or effort != first or self.current is before):
            yield _at(other, first)
        if effort != first:
            yield _at(before if other is None or self.current.base is before.base else other, effort)

    def _judge(self, name: str, candidate: Candidate, started: float, *, doubt: bool) -> None:
        before, step = self._distances, STEPS[name]
        tried = candidate.graph is not self.current.graph
        after = fitted = before
        if tried:
            content = runnable(candidate.graph)
            after = fitted = self._validation.distances_of(content)
            if self._fitted is not self._validation:
                fitted = self._fitted.distances_of(content)
            del content  # as large as the network
        kept = tried and step.keeps(candidate.plan, before, after, doubt=doubt)
        note = candidate.note
        if candidate.base is self._model and self.current.base is not self._model:
            note = f"{note}, without equalization"
        elif name != EQUALIZATION and candidate.base is not self._model and self.current.base is self._model:
            note = f"{note}, with equalization"
        self.results.append(
            StepResult(
                name,
                before.mean,
                after.mean,
                fitted.mean,
                self._validation.measure,
                kept,
                time.monotonic() - started,
                note,
            )
        )
        if name == EQUALIZATION and tried:
            self._undecided = not kept and not before.closer_than(after)
            self._other = self.current if kept else candidate if self._undecided else None
        if kept:
            self.current, self._distances = _at(candidate, self.current.plan.effort), after


def _at(candidate: Candidate, effort: str) -> Candidate:
    return replace(candidate, plan=replace(candidate.plan, effort=effort))


def _told(result: StepResult) -> str:
    """What became of a step, for those who asked for details."""
    verdict = "kept" if result.kept else "not kept"
    change = f"{result.measure} {result.before:.3g} -> {result.after:.3g}"
    return f"step {result.name}: {change}, {verdict}; {result.seconds:.1f} s"

"""The one figure that files are judged by first, whatever the task: what charts and findings are drawn from."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from lowbit.measurement.results import Comparison, Row
from lowbit.reports import units

POINTS = 0.10  # of a fraction: files that lost more stand at the edge of the chart
LEAST_ROOM = 0.002  # of a fraction, above and below what is drawn


@dataclass(frozen=True)
class Scale:
    """What numbers mean; in charts they are multiplied by `best`, so that more is better.

    Attributes:
        unit: of the numbers that are shown; a fraction is shown in "%".
        best: +1 if larger is better, -1 if smaller is.
    """

    unit: str
    best: int

    @property
    def is_fraction(self) -> bool:
        """Whether numbers are shares that are shown as percentages, so that a point means something."""
        return self.unit == "%"

    @property
    def factor(self) -> float:
        """From a number of a chart to what is shown."""
        return self.best * (100.0 if self.is_fraction else 1.0)

    def text(self, value: float | None) -> str:
        """A number with its unit."""
        number = units.percent(value) if self.is_fraction else units.figure(value)
        return f"{number} {self.unit}".strip()

    def far(self, best: float) -> float:
        """How much less than the best of a chart stands at its edge."""
        return POINTS if self.is_fraction else math.inf if self.unit == "dB" else abs(best)

    def limits(self) -> tuple[float, float]:
        """Between which numbers of a chart lie."""
        if not self.is_fraction:
            return -math.inf, math.inf
        return (0.0, 1.0) if self.best > 0 else (-math.inf, 0.0)

    def room(self, best: float) -> float:
        """At least so much stands free above and below what is drawn."""
        return LEAST_ROOM if self.is_fraction else max(1e-9, 0.02 * abs(best))


PERCENT = Scale("%", 1)


@dataclass(frozen=True)
class Quality:
    """A figure of each row.

    Attributes:
        word: in sentences.
        scale: what its numbers mean.
        value: of a row; None if it was not measured.
        float_value: of the reference.
    """

    word: str
    scale: Scale
    value: Callable[[Row], float | None]
    float_value: float | None

    @property
    def title(self) -> str:
        """Above the axis of a chart."""
        return ", ".join(part for part in (self.word, self.scale.unit) if part)


def quality_of(comparison: Comparison) -> Quality:
    """Accuracy, or agreement with float without labels; a task's first metric; or how far outputs are from float's."""
    first = comparison.rows[0]
    if comparison.classifies:
        if comparison.has_labels:
            return Quality("accuracy", PERCENT, lambda row: row.accuracy, first.accuracy)
        return Quality("agreement with float", PERCENT, lambda row: row.agreement, 1.0)
    for metric in comparison.metrics:
        if metric.best and sum(metric.name in row.scores for row in comparison.rows) > 1:
            scale, start = Scale(metric.unit, metric.best), first.scores.get(metric.name)
            return Quality(metric.title, scale, _score(metric.name), start)
    if any(row.output_error for row in comparison.rows):
        return Quality("variance over error of the farthest output", Scale("dB", 1), _closeness, None)
    return Quality("outputs the same as float's", PERCENT, lambda row: row.output_agreement, 1.0)


def _closeness(row: Row) -> float | None:
    """In decibels, so that files whose errors are decades apart stand beside each other."""
    return -10 * math.log10(row.output_error) if row.output_error else None


def _score(name: str) -> Callable[[Row], float | None]:
    return lambda row: row.scores.get(name)

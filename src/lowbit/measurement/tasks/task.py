"""What a task is: metrics, the function that computes them, and the outputs and labels that it is made for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.answers import Answer
from lowbit.data.sources import Labels, Target, Targets
from lowbit.errors import DataError
from lowbit.measurement.results import Metric

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """What a task judges.

    Attributes:
        outputs: of a file, by name: [samples, ...] each, or a list of arrays where shapes differ.
        truth: what each sample should give: class numbers [samples], arrays, or boxes by name; None without labels.
        reference: outputs of the float model, which decide how outputs are read; the file's own if it is the float one.
        size: height and width of the images that the model takes, if it takes images.
    """

    outputs: Mapping[str, Answer]
    truth: Labels | Targets | None
    reference: Mapping[str, Answer]
    size: tuple[int, int] | None = None

    @property
    def first(self) -> Target | None:
        """What the first sample should give; None without labels."""
        return None if self.truth is None else self.truth[0]

    @property
    def wanted(self) -> Sequence[Target]:
        """What each sample should give; empty without labels."""
        return () if self.truth is None else tuple(self.truth)

    def found(self, fits: Callable[[Answer], bool]) -> str | None:
        """Name of the first of the float model's outputs that fits."""
        return next((name for name, answer in self.reference.items() if fits(answer)), None)

    def pairs(self, name: str) -> Iterator[tuple[Array, Array]]:
        """An output of each sample, and what it should be."""
        return zip(map(np.asarray, self.outputs[name]), map(np.asarray, self.wanted), strict=True)


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: what `--task` calls it.
        metrics: the most important one first.
        measure: gives the metrics by name; those that cannot be computed are left out.
        fits: whether it can be measured with these outputs and labels.
        needs: what it takes, for the message where outputs or labels do not fit.
        obvious: whether outputs and labels are made for it, so that it is chosen by itself; by default where it fits.
        without: gives the metrics without each of some groups of samples, where that is quicker than to measure the
            rest each time.

    >>> def largest_output(outputs, labels) -> float:
    ...     return float(outputs["logits"].max())
    >>> comparison = lowbit.measure("model.onnx", "test", runs=0, task=largest_output)
    >>> comparison.metrics[0].name
    'largest_output'
    """

    name: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Case], Mapping[str, float]]
    fits: Callable[[Case], bool]
    needs: str
    obvious: Callable[[Case], bool] | None = None
    without: Callable[[Case, Sequence[Array]], Sequence[Mapping[str, float]]] | None = None

    def is_obvious(self, case: Case) -> bool:
        """Whether the task is chosen by itself."""
        return self.fits(case) and (self.obvious is None or self.obvious(case))

    def check(self, case: Case) -> None:
        """Refuse outputs and labels of another kind.

        Raises:
            DataError: they do not fit.
        """
        if not self.fits(case):
            raise DataError(
                f"outputs ({_listed(case.reference)}) and labels ({_shape_of(case.first)} for each sample) are not "
                f"those of the task '{self.name}'.",
                remedy=f"It takes {self.needs}.",
            )


def _listed(outputs: Mapping[str, Answer]) -> str:
    return ", ".join(f"'{name}' {_shape_of(answer[0])}" for name, answer in outputs.items())


def _shape_of(value: Target | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return f"{{{', '.join(value)}}}"
    return f"{np.asarray(value).dtype} {list(np.shape(value))}"

"""The tasks, in one table, and which one a network's outputs and labels are made for. A new task is one row here."""

from collections.abc import Callable, Mapping
from typing import Any

from lowbit.errors import DataError
from lowbit.measurement.results import CLASSIFICATION, Metric
from lowbit.measurement.tasks import (
    classification,
    detection,
    embeddings,
    regression,
    segmentation,
    sequences,
    tokens,
)
from lowbit.measurement.tasks.task import Case, Task

Callback = Callable[[Mapping[str, Any], Any], float]
DISTANCE = Task("distance", (), lambda case: {}, lambda case: True, "any outputs, and no labels")

# In the order in which outputs and labels are asked whether they are made for it.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "detection", detection.METRICS, detection.measure, detection.fits, detection.NEEDS,
            without=detection.without,
        ),
        Task(
            "embeddings", embeddings.METRICS, embeddings.measure, embeddings.fits, embeddings.NEEDS,
            obvious=embeddings.is_obvious,
        ),
        Task(
            CLASSIFICATION, classification.METRICS, classification.measure, classification.fits, classification.NEEDS,
            obvious=classification.is_obvious,
        ),
        Task("segmentation", segmentation.METRICS, segmentation.measure, segmentation.fits, segmentation.NEEDS),
        Task("tokens", tokens.METRICS, tokens.measure, tokens.fits, tokens.NEEDS),
        Task("sequences", sequences.METRICS, sequences.measure, sequences.fits, sequences.NEEDS),
        Task(
            "regression", regression.METRICS, regression.measure, regression.fits, regression.NEEDS,
            obvious=regression.is_obvious,
        ),
        DISTANCE,
    )
}  # fmt: skip


def check_task(task: str | Task | Callback | None) -> None:
    """Refuse a task that there is not, before anything takes time.

    Raises:
        DataError: no such task.
    """
    if isinstance(task, str) and task not in TASKS:
        raise DataError(f"there is no task '{task}'.", remedy=f"Choose {', '.join(TASKS)}.")


def chosen_task(task: str | Task | Callback | None, case: Case) -> Task:
    """The task of outputs and labels.

    Args:
        task: its name, a task, or a function of outputs and labels that gives one number; None to choose by outputs
            and labels.
        case: the float model's answers, and the labels.

    Raises:
        DataError: no such task, or one that outputs and labels are not made for.
    """
    check_task(task)
    if task is None:
        return next(each for each in TASKS.values() if each.is_obvious(case))
    if isinstance(task, str):
        task = TASKS[task]
    elif not isinstance(task, Task):
        task = of_function(task)
    task.check(case)
    return task


def of_function(metric: Callback) -> Task:
    """A task with one metric of one's own; reports do not say which way is better.

    Args:
        metric: (outputs, labels) -> a number: outputs by name [samples, ...], or lists where shapes differ; labels as
            the data has them.
    """
    name = str(getattr(metric, "__name__", type(metric).__name__))
    shown = Metric(name, name, "", 0, (metric.__doc__ or "").strip().partition("\n")[0])
    return Task(name, (shown,), lambda case: {name: float(metric(case.outputs, case.truth))}, lambda case: True, "any")

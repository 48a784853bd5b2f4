"""A file's answers judged: the figures of its task, and the distance of every output from the float model's."""

import dataclasses

from lowbit.measurement.accuracy import Score, score
from lowbit.measurement.outputs import output_rows
from lowbit.measurement.prediction import Answers
from lowbit.measurement.results import CLASSIFICATION, finite
from lowbit.measurement.tasks import Case, Task


def case_of(answers: Answers, reference: Answers, size: tuple[int, int] | None) -> Case:
    """What a task judges; `reference` is the answers themselves for the float model."""
    return Case(answers.outputs, answers.truth, reference.outputs, size)


def judged(answers: Answers, task: Task, *, reference: Answers, size: tuple[int, int] | None = None) -> Score:
    """Everything that follows from a file's answers.

    Args:
        answers: of the file.
        task: see `tasks`.
        reference: the float model's answers, which are the answers themselves where the file is the float one.
        size: height and width of the images that the model takes, if it takes images.

    Raises:
        DataError: labels or outputs do not fit the task, or each other.
    """
    first = answers is reference
    answers = answers.named_as(reference)
    scored = Score(answers.count)
    if task.name == CLASSIFICATION:
        scored = score(answers.class_scores(), reference=None if first else reference.class_scores())
    outputs, notes = output_rows(answers.outputs, None if first else reference.outputs)
    missing = [name for name in reference.outputs if name not in answers.outputs]
    measured = {} if missing else task.measure(case_of(answers, reference, size))
    known = {name: value for name, given in measured.items() if (value := finite(given)) is not None}
    return dataclasses.replace(scored, scores=known, outputs=outputs, notes=(*scored.notes, *answers.notes, *notes))

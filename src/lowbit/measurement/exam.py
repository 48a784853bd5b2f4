"""Samples with the float model's answers to them: what many files of one model are judged on, one after the other."""

from dataclasses import dataclass, field
from functools import cached_property

from lowbit.calibration.batches import samples_per_run
from lowbit.data.dataset import Dataset
from lowbit.graph.memory import samples_that_fit
from lowbit.graph.model import Model
from lowbit.measurement.accuracy import Score
from lowbit.measurement.judging import case_of, judged
from lowbit.measurement.prediction import Answers, Runs, predict
from lowbit.measurement.reference import image_size
from lowbit.measurement.results import CLASSIFICATION
from lowbit.measurement.tasks import Task, chosen_task
from lowbit.measurement.verdicts import Judgement

BATCH = 32  # samples a run, where the model takes any number


@dataclass(frozen=True)
class Exam:
    """Samples with float's answers to them.

    Attributes:
        model: the prepared float model.
        data: evaluation samples, in runs of the model.
        reference: float's answers.
        task: what files are judged by.
    """

    model: Model
    data: Dataset
    reference: Answers = field(repr=False)
    task: Task

    @staticmethod
    def of(model: Model, data: Dataset, task: str | Task | None = None) -> "Exam":
        """The exam that samples make.

        Raises:
            DataError: labels or outputs do not fit the task.
        """
        answers = _predicted(model.to_bytes(), model, data)
        return Exam(model, data, answers, chosen_task(task, case_of(answers, answers, image_size(model))))

    @property
    def classifies(self) -> bool:
        """Whether images are counted as right or wrong."""
        return self.task.name == CLASSIFICATION

    @cached_property
    def judgement(self) -> Judgement:
        """What tells how sure a drop is."""
        return Judgement(self.task, self.reference, image_size(self.model))

    def answers(self, content: bytes) -> Answers:
        """What a file answers."""
        return _predicted(content, self.model, self.data).named_as(self.reference)

    def score(self, answers: Answers) -> Score:
        """What answers come to beside float's."""
        return judged(answers, self.task, reference=self.reference, size=image_size(self.model))


def _predicted(content: bytes, model: Model, data: Dataset) -> Answers:
    fixed = samples_per_run(model, data)
    return predict(content, data, runs=Runs(fixed or min(BATCH, samples_that_fit(model.ir)), exactly=fixed is not None))

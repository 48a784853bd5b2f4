"""How well the float model's answers tell samples apart, with labels and without.

A classifier that sees what it was trained on is sure of each sample, and of different samples it is sure of different
classes: the mutual information of sample and class, H(mean p) - mean H(p) in nats, is large (Bridle, Heading and MacKay
1991, "Unsupervised classifiers, mutual information and 'phantom targets'"). Confidence alone is no measure: a network
that gets 0..255 for 0..1 is certain, and of the same class every time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowbit.calibration.answers import by_sample, is_class_scores
from lowbit.calibration.batches import Batches
from lowbit.calibration.divergence import are_probabilities, log_probabilities
from lowbit.data.dataset import Array, Dataset
from lowbit.data.sources import Labels
from lowbit.engines import Session
from lowbit.graph.model import Model

Doubles = npt.NDArray[np.float64]
Change = Callable[[Array], Array]
BATCH = 8


@dataclass(frozen=True)
class ClassAnswers:
    """A classifier's answers.

    Attributes:
        logs: log probabilities in nats, [samples, classes].
        labels: int64 [samples], or None.
    """

    logs: Doubles
    labels: Labels | None

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """The answer to each sample [samples]."""
        return np.asarray(self.logs.argmax(axis=1), np.int64)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which samples are answered as labeled [samples]; needs labels."""
        return np.asarray(self.classes == self.labels)

    @property
    def losses(self) -> Doubles:
        """-log p(label) in nats [samples]; needs labels."""
        assert self.labels is not None
        return np.asarray(-self.logs[np.arange(len(self.logs)), self.labels])

    @property
    def information(self) -> float:
        """Mutual information of sample and class in nats."""
        return float(self.information_of(np.arange(len(self.logs))))

    def information_of(self, chosen: npt.NDArray[np.intp]) -> float:
        """The same of some samples."""
        logs = self.logs[chosen]
        mean = np.exp(logs).mean(axis=0)
        return float(-(mean * np.log(np.maximum(mean, 1e-30))).sum() + (np.exp(logs) * logs).sum(axis=1).mean())

    @property
    def most_information(self) -> float:
        """What the information is at most, for the classes that labels (or answers) have, in nats."""
        known = self.classes if self.labels is None else self.labels
        shares = np.unique(known, return_counts=True)[1] / len(known)
        return float(-(shares * np.log(shares)).sum())


def class_answers(model: Model, session: Session, data: Dataset, change: Change | None = None) -> ClassAnswers | None:
    """The answers of a classifier; None if no output has a score for each of several classes.

    Args:
        model: the float model.
        session: that runs it.
        data: samples.
        change: what is done to the only input before it is given.
    """
    parts: dict[str, list[Array]] = {}
    labels: list[Array] = []
    sizes: list[int] = []
    for batch in Batches(model, data, BATCH):
        inputs = batch.inputs
        if change is not None:
            inputs = inputs | {model.input.name: np.ascontiguousarray(change(batch.x), np.float32)}
        for name, value in session.run(inputs).items():
            parts.setdefault(name, []).append(value)
        sizes.append(len(batch))
        labels += [] if batch.labels is None else [batch.labels]
    answers = (by_sample(given, sizes) for given in parts.values())
    scores = next((answer for answer in answers if answer is not None and is_class_scores(answer)), None)
    if scores is None:
        return None
    scores = np.nan_to_num(scores.reshape(len(scores), -1))
    logs = log_probabilities(scores, probabilities=are_probabilities(scores))
    truth = np.concatenate(labels) if labels else None
    if truth is not None and not 0 <= truth.min() <= truth.max() < logs.shape[1]:
        truth = None
    return ClassAnswers(logs, truth)

"""Do labels belong to the samples? A network that is sure of what it sees and right by chance says they do not."""

import numpy as np
import numpy.typing as npt

from lowbit.data.dataset import Dataset
from lowbit.diagnosis.class_answers import ClassAnswers
from lowbit.diagnosis.findings import LABELS, Finding

SURE = 0.3  # share of the information that there could be, from which a network is sure of different things
CHANCE = (
    0.25  # of the way from chance to always right, below which answers and labels have little to do with each other
)
BEYOND = 4.0  # standard errors
MAPPED = 0.6  # accuracy that another numbering must bring back


def label_findings(data: Dataset, answers: ClassAnswers) -> tuple[Finding, ...]:
    """Labels that are shuffled, or those of other classes in the same order.

    Args:
        data: what was answered to.
        answers: of the float model.
    """
    if answers.labels is None or answers.most_information == 0:
        return ()
    truth, classes, count = answers.labels, answers.classes, len(answers.labels)
    sure = answers.information >= SURE * answers.most_information
    accuracy = float(answers.right.mean())
    kinds = answers.logs.shape[1]
    of_labels, of_answers = (np.bincount(each, minlength=kinds) / count for each in (truth, classes))
    chance = float(of_labels @ of_answers)
    kappa = (accuracy - chance) / max(1 - chance, 1e-9)
    error = np.sqrt(chance * (1 - chance) / count) / max(1 - chance, 1e-9)
    if not sure or kappa > CHANCE or count < 3 * len(np.unique(truth)):
        return ()
    names = data.class_names or tuple(map(str, range(kinds)))
    said = f"accuracy {100 * accuracy:.1f} %, by chance {100 * chance:.1f} %, though the model is sure of its answers"
    if numbering_share(answers) >= MAPPED:
        order, _ = _other_numbering(answers)
        pairs = ", ".join(f"{names[label]} is answered {names[answer]}" for label, answer in order.items())
        what = f"classes are numbered in another order than the model's: {pairs}"
        return (Finding(LABELS, data.name, what, "Name the classes in the order of the model's outputs."),)
    if kappa > BEYOND * error and kappa > CHANCE / 2:
        return ()
    cure = "Check that labels and samples are in the same order: one was shuffled without the other."
    return (Finding(LABELS, data.name, f"labels and answers have nothing to do with each other: {said}", cure),)


def numbering_share(answers: ClassAnswers) -> float:
    """The share of samples that are answered right once classes are numbered otherwise; 0 where no numbering fits."""
    order, table = _other_numbering(answers)
    return float(sum(table[label, answer] for label, answer in order.items()) / table.sum())


def _other_numbering(answers: ClassAnswers) -> tuple[dict[int, int], npt.NDArray[np.int64]]:
    """For each label the class that is mostly answered, if that is another one for each; and how often each is."""
    assert answers.labels is not None
    table = np.zeros((answers.logs.shape[1],) * 2, np.int64)
    np.add.at(table, (answers.labels, answers.classes), 1)
    used = np.flatnonzero(table.sum(axis=1))
    order = {int(label): int(table[label].argmax()) for label in used}
    return (order if len(set(order.values())) == len(order) > 1 else {}), table

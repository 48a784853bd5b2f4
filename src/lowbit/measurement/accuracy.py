"""How good the predictions are: accuracy with its interval, loss, and what changed against the float model.

A few hundred images resolve accuracy only to a few tenths of a point (with 372, one image is 0.27), so the paired
numbers are shown too: changed predictions with McNemar's exact test, and the mean KL divergence of the softmax, which
shows damage long before a prediction changes. Sources: Wilson 1927 (score interval); McNemar 1947 in its exact,
binomial form. All sums are float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.divergence import are_probabilities, log_probabilities, mean_kl
from lowbit.certainty.intervals import wilson_interval
from lowbit.certainty.verdicts import Verdict
from lowbit.errors import DataError
from lowbit.measurement.by_class import by_class
from lowbit.measurement.details import ByClass, OutputRow
from lowbit.measurement.prediction import Prediction
from lowbit.measurement.results import finite


@dataclass(frozen=True)
class Score:
    """Everything that follows from outputs and labels; the paired fields are `None` without a reference.

    `lost` and `gained` count images that only the reference, and only this file, gets right. All but `scores` and
    `outputs` are of classifiers only; these are what the task measures, and the distance of every output from float's.
    """

    images: int
    right: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    loss: float | None = None
    agreement: float | None = None
    flips: int | None = None
    kl: float | None = None
    mcnemar_p: float | None = None
    lost: int | None = None
    gained: int | None = None
    notes: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    outputs: tuple[OutputRow, ...] = ()
    verdict: Verdict | None = None
    by_class: ByClass | None = None


def score(prediction: Prediction, *, reference: Prediction | None = None) -> Score:
    """Score one file's outputs, against labels where there are any and against `reference` (float) where given.

    Raises:
        DataError: labels do not fit the outputs, or the two predictions are of different images.
    """
    outputs, labels = prediction.logits, prediction.labels
    _check(outputs, labels)
    guide = outputs if reference is None else reference.logits
    probabilities = are_probabilities(guide)
    notes = ["The model's outputs are probabilities already; loss and KL use them directly."] if probabilities else []
    classes = predicted_classes(outputs)
    broken = int(np.count_nonzero(classes < 0))
    if broken:
        notes.append(f"{broken} of {len(classes)} images gave outputs that are not finite; they count as wrong.")
    right = accuracy = low = high = loss = counts = None
    if labels is not None:
        right = int(np.count_nonzero(classes == labels))
        accuracy = right / len(classes)
        low, high = wilson_interval(right, len(classes))
        loss = finite(cross_entropy(outputs, labels, probabilities=probabilities))
        counts = by_class(outputs, classes, labels, probabilities=probabilities)
    agreement = changed = kl = p = lost = gained = None
    if reference is not None:
        if reference.logits.shape != outputs.shape:
            raise DataError(
                f"outputs have shape {outputs.shape}, those of the float model {reference.logits.shape}.",
                remedy="Compare files of one model on the same images.",
            )
        before = predicted_classes(reference.logits)
        changed = flips(before, classes)
        agreement = 1 - changed / len(classes)
        kl = finite(mean_kl(reference.logits, outputs, probabilities=probabilities))
        if labels is not None:
            lost = int(np.count_nonzero((before == labels) & (classes != labels)))
            gained = int(np.count_nonzero((before != labels) & (classes == labels)))
            p = mcnemar_p(lost, gained)
    return Score(
        len(classes), right, accuracy, low, high, loss, agreement, changed, kl, p, lost, gained, tuple(notes),
        by_class=counts,
    )  # fmt: skip


def predicted_classes(outputs: NDArray[np.floating]) -> NDArray[np.int64]:
    """The largest output of each row; -1 (never a label) where a row holds NaN or an infinity."""
    return np.where(np.isfinite(outputs).all(axis=1), outputs.argmax(axis=1), -1).astype(np.int64)


def cross_entropy(outputs: NDArray[np.floating], labels: NDArray[np.integer], *, probabilities: bool = False) -> float:
    """Mean of -log p(label) in nats."""
    logs = log_probabilities(outputs, probabilities=probabilities)
    return float(-logs[np.arange(len(labels)), labels].mean())


def flips(reference: NDArray[np.integer], classes: NDArray[np.integer]) -> int:
    """How many predictions changed."""
    return int(np.count_nonzero(reference != classes))


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact two-sided p that `lost` against `gained` is chance: 2 P(X <= min) for X ~ Binomial(lost + gained, 1/2)."""
    changed = lost + gained
    ways = term = 1
    for i in range(1, min(lost, gained) + 1):
        term = term * (changed - i + 1) // i
        ways += term
    # Integers divide exactly, however large; no underflow on the way.
    return 1.0 if 2 * ways >= 2**changed else 2 * ways / 2**changed


def _check(outputs: NDArray[np.floating], labels: NDArray[np.integer] | None) -> None:
    if outputs.ndim != 2 or len(outputs) == 0 or outputs.shape[1] < 2:
        raise DataError(
            f"outputs of shape {outputs.shape} are not one row of at least two class scores per image.",
            remedy="Give a model whose output is [images, classes], or name another task.",
        )
    if labels is None:
        return
    if len(labels) != len(outputs):
        raise DataError(f"{len(labels)} labels for {len(outputs)} images.", remedy="Give one label per image.")
    if labels.min() < 0 or labels.max() >= outputs.shape[1]:
        raise DataError(
            f"labels range from {labels.min()} to {labels.max()}, but the model has {outputs.shape[1]} outputs.",
            remedy="Give images of the classes that the model was trained on.",
        )

"""Sequences by CTC: a network says at each moment which character it is, or blank; greedy decoding joins repetitions.

    character error rate = sum edit distance(decoded, wanted) / sum length(wanted)

with the least number of insertions, deletions and substitutions (Graves et al. 2006, "Connectionist temporal
classification"; Levenshtein 1966). Gives up: beams and language models, which are the application's. The blank is class
0, or the last one if labels have class 0. Negative labels, and blanks at the end of a label, are padding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.answers import Answer
from lowbit.measurement.results import Metric
from lowbit.measurement.tasks.task import Case

METRICS = (
    Metric("cer", "CER", "%", -1, "Character error rate: edits that greedy CTC decoding is from the labels"),
    Metric("exact", "exact", "%", 1, "Share of sequences without an error"),
)
NEEDS = "an output [samples, time, classes], and a sequence of classes for each sample"

Array = np.ndarray[Any, np.dtype[Any]]
Ids = NDArray[np.int64]


def fits(case: Case) -> bool:
    """Scores at each moment, and sequences of integers that are no longer."""
    if case.truth is None or isinstance(case.first, Mapping):
        return False
    labels = [np.asarray(target) for target in case.wanted]
    name = case.found(_is_scores)
    if name is None or any(label.ndim != 1 or label.dtype.kind not in "iu" for label in labels):
        return False
    return all(
        len(label) <= len(_scores(np.asarray(answer)))
        for answer, label in zip(case.reference[name], labels, strict=True)
    )


def measure(case: Case) -> Mapping[str, float]:
    """Character error rate, and the share of sequences that are right."""
    name = case.found(_is_scores) or ""
    classes = _scores(np.asarray(case.reference[name][0])).shape[1]
    has_zero = any((_unpadded(np.asarray(target), blank=0) == 0).any() for target in case.wanted)
    blank = classes - 1 if has_zero else 0
    edits = length = exact = count = 0
    for answer, label in case.pairs(name):
        wanted = _unpadded(label, blank=blank)
        distance = edit_distance(decoded(_scores(answer), blank=blank), wanted.tolist())
        edits, length, exact, count = edits + distance, length + len(wanted), exact + (distance == 0), count + 1
    scores = {"exact": exact / count}
    return {"cer": edits / length, **scores} if length else scores


def decoded(scores: Array, *, blank: int) -> list[int]:
    """The most probable class of each moment, repetitions joined and blanks dropped."""
    best = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    starts = np.concatenate([[True], best[1:] != best[:-1]])
    return [int(each) for each in best[starts] if each != blank]


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """The least number of insertions, deletions and substitutions, row by row of the table."""
    before = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
        before = row
    return before[-1]


def _unpadded(label: Array, *, blank: int) -> Ids:
    label = label[label >= 0].astype(np.int64)
    last = np.flatnonzero(label != blank)
    return label[: last[-1] + 1] if len(last) else label[:0]


def _is_scores(answer: Answer) -> bool:
    sample = np.asarray(answer[0])
    return sample.dtype.kind == "f" and _scores(sample).ndim == 2 and _scores(sample).shape[1] > 1


def _scores(sample: Array) -> Array:
    """[time, classes], without the axis of a batch in the middle that networks with time first have."""
    return sample[:, 0] if sample.ndim == 3 and sample.shape[1] == 1 else sample

"""Token models: scores of every token of the vocabulary at each position, and the id that is right there.

    perplexity = exp(mean of -log p(id))     over all positions

Labels are aligned with the output: of a language model the id at each position is the *next* token's. Negative ids are
ignored. Probabilities are the softmax of the scores, in float64.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lowbit.calibration.answers import Answer
from lowbit.calibration.divergence import log_probabilities
from lowbit.errors import DataError
from lowbit.measurement.results import Metric
from lowbit.measurement.tasks.task import Case

METRICS = (
    Metric("perplexity", "perplexity", "", -1, "exp of the mean loss in nats per token"),
    Metric("token_accuracy", "tokens", "%", 1, "Share of positions where the most probable token is the labeled one"),
)
NEEDS = "an output [samples, positions, vocabulary], and ids [positions] aligned with it, negative where ignored"

Array = np.ndarray[Any, np.dtype[Any]]


def fits(case: Case) -> bool:
    """Scores at each position, and as many integers."""
    if case.truth is None or isinstance(case.first, Mapping):
        return False
    labels = [np.asarray(target) for target in case.wanted]
    name = case.found(_is_scores)
    return name is not None and all(
        label.dtype.kind in "iu" and label.shape == np.shape(answer)[:1]
        for answer, label in zip(case.reference[name], labels, strict=True)
    )


def measure(case: Case) -> Mapping[str, float]:
    """Perplexity and the share of tokens that are right.

    Raises:
        DataError: an id beyond the vocabulary.
    """
    loss = 0.0
    right = count = 0
    for index, (answer, ids) in enumerate(case.pairs(case.found(_is_scores) or "")):
        judged = ids >= 0
        scores, ids = answer[judged], ids[judged].astype(np.int64)
        if len(ids) and int(ids.max()) >= scores.shape[1]:
            what = f"a label is token {ids.max()}, but the model has a vocabulary of {scores.shape[1]}."
            raise DataError(what, where=f"sample {index}")
        loss -= float(log_probabilities(scores, probabilities=False)[np.arange(len(ids)), ids].sum())
        right, count = right + int(np.count_nonzero(scores.argmax(axis=1) == ids)), count + len(ids)
    if not count:
        return {}
    mean = loss / count
    return {"perplexity": math.exp(mean) if mean < math.log(1e300) else math.inf, "token_accuracy": right / count}


def _is_scores(answer: Answer) -> bool:
    sample = np.asarray(answer[0])
    return sample.dtype.kind == "f" and sample.ndim == 2 and sample.shape[1] > 1

"""Embeddings: vectors whose angles say what belongs together.

- Cosine to float: between a sample's vector and the float model's, in the mean.
- Recall@k, with labels as identities: the share of samples that have another of the same identity among the k nearest
  by cosine; samples whose identity no other has are not asked for (Jegou et al. 2011, "Product quantization for
  nearest neighbor search", in the form that metric learning uses).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.answers import Answer
from lowbit.measurement.results import Metric
from lowbit.measurement.tasks.task import Case

METRICS = (
    Metric("recall1", "recall@1", "%", 1, "Share of samples whose nearest other has the same identity"),
    Metric("recall5", "recall@5", "%", 1, "Share of samples with one of the same identity among the five nearest"),
    Metric("cosine", "cosine", "", 1, "Mean cosine between a file's vectors and the float model's"),
)
NEEDS = "an output [samples, dimensions], and an identity number for each sample or no labels"
ROWS = 256  # that are compared with all others at a time
UNIT = 1e-3  # by which the lengths of normalized vectors may differ from 1

Floats = NDArray[np.float64]


def fits(case: Case) -> bool:
    """A vector for each sample, and no labels or one integer for each."""
    labels_fit = case.truth is None or (isinstance(case.truth, np.ndarray) and case.truth.ndim == 1)
    return labels_fit and case.found(_is_vectors) is not None


def is_obvious(case: Case) -> bool:
    """Whether the only output has vectors of length 1 with negative values, which scores of classes never are."""
    if len(case.reference) > 1:
        return False
    (answer,) = case.reference.values()
    vectors = np.asarray(answer).reshape(len(answer), -1)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return bool((np.abs(lengths - 1) < UNIT).all() and (vectors < 0).any())


def measure(case: Case) -> Mapping[str, float]:
    """Recall among the nearest 1 and 5, with labels, and cosine to float."""
    name = case.found(_is_vectors) or ""
    vectors = _unit(case.outputs[name])
    scores: dict[str, float] = {}
    if case.reference is not case.outputs:
        scores["cosine"] = float((vectors * _unit(case.reference[name])).sum(axis=1).mean())
    if case.truth is None:
        return scores
    ranks = _ranks(vectors, np.asarray(case.truth))
    return {f"recall{k}": float((ranks < k).mean()) for k in (1, 5)} | scores if len(ranks) else scores


def _ranks(vectors: Floats, identities: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """For each sample with another of its identity, how many others are nearer than the nearest of these."""
    ranks = []
    for start in range(0, len(vectors), ROWS):
        near = vectors[start : start + ROWS] @ vectors.T
        own = np.arange(len(near))
        near[own, start + own] = -np.inf
        same = identities[start : start + ROWS, None] == identities[None]
        same[own, start + own] = False
        best = np.where(same, near, -np.inf).max(axis=1)
        # As near counts as nearer: vectors that are all the same say nothing. Nor do those that are no numbers.
        nearer = ((near >= best[:, None]) & ~same).sum(axis=1)
        ranks.append(np.where(np.isfinite(best), nearer, len(vectors))[same.any(axis=1)])
    return np.concatenate(ranks)


def _unit(answer: Answer) -> Floats:
    x = np.asarray(answer, np.float64).reshape(len(answer), -1)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny))


def _is_vectors(answer: Answer) -> bool:
    return isinstance(answer, np.ndarray) and answer.dtype.kind == "f" and answer.ndim >= 2 and answer[0].size > 1

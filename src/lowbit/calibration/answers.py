"""What a network answers, sample by sample: all of its outputs, and how far they are from the float model's.

An answer is one output for all samples: an array [samples, ...], or a list of arrays where samples have answers of
different shapes, as sequences do. A classifier's answers are compared by their KL divergence
(`lowbit.calibration.divergence`), all others by the squared error of every output, relative to the variance of each of
its channels: of a detector scores count as much as boxes, though these are a hundred times larger.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from lowbit.calibration.batches import Batches, outputs_of
from lowbit.calibration.divergence import BATCH_SIZE, are_probabilities, as_logits, kl_by_image
from lowbit.data.dataset import Batch, Dataset
from lowbit.graph.light_model import LightModel
from lowbit.graph.model import Model

LEAST_VARIANCE = 0.01  # of a channel, relative to the mean of its output's channels
UNRELATED = 1.0  # relative error of an answer that has another shape than the wanted one: as if it always said the mean

Array = np.ndarray[Any, np.dtype[Any]]
Answer = Array | list[Array]
Doubles = npt.NDArray[np.float64]


def float_answers(
    content: bytes | LightModel, model: Model, data: Dataset, *, threads: int = 0, most_bytes: int | None = None
) -> dict[str, Answer]:
    """Every float output (every output if none is) that `per_image` finds something for each sample in.

    Args:
        content: what runs: a file of the model, or a light model.
        model: the float model, which says how many samples a run takes and what its outputs are called.
        data: samples; labels are not used.
        threads: total number of threads; 0 takes one per processor core.
        most_bytes: where to stop: large answers of a few samples say much already.

    Raises:
        DataError: too few samples for one run.
    """
    names = [output.name for output in model.outputs]
    parts: dict[str, list[Array]] = {}
    sizes: list[int] = []
    kinds: list[Hashable] = []
    held = 0
    for batch, outputs in outputs_of(content, Batches(model, data, BATCH_SIZE), threads=threads):
        for name in [name for name in names if outputs[name].dtype.kind == "f"] or names:
            parts.setdefault(name, []).append(np.asarray(outputs[name], np.float32))
            held += parts[name][-1].nbytes
        sizes.append(len(batch))
        kinds.append(_kind(batch))
        if most_bytes is not None and held > most_bytes:
            break
    return per_image(parts, sizes, kinds)


def _kind(batch: Batch) -> Hashable:
    """What the inputs of a sample have in common with those of others: their shapes."""
    return tuple(x.shape[name not in batch.whole :] for name, x in batch.inputs.items())


def by_sample(parts: Sequence[Array], sizes: Sequence[int]) -> Answer | None:
    """One output for all samples, or None if runs did not give as much for each of their samples.

    What has one row for each sample comes without that axis, as [samples, ...]; what has several rows for each, as
    [samples, rows, ...]. What a run of one sample gives belongs to that sample, whatever its shape.

    Args:
        parts: what each run gave.
        sizes: samples of each run.
    """
    alone = all(size == 1 for size in sizes)
    if not alone and any(not part.ndim or len(part) % size for part, size in zip(parts, sizes, strict=True)):
        return None
    rows = [len(part) // size if part.ndim else 0 for part, size in zip(parts, sizes, strict=True)]
    if all(each == 1 for each in rows):
        if len({part.shape[1:] for part in parts}) == 1:
            return _joined(parts)
        return [sample for part in parts for sample in part]
    if alone:
        return np.stack(parts) if len({part.shape for part in parts}) == 1 else list(parts)
    dealt = [part.reshape(size, each, *part.shape[1:]) for part, size, each in zip(parts, sizes, rows, strict=True)]
    if len({part.shape[1:] for part in dealt}) == 1:
        return _joined(dealt)
    return [sample for part in dealt for sample in part]


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)  # a part may be a file that memory would not hold


def per_image(
    parts: Mapping[str, Sequence[Array]], sizes: Sequence[int], kinds: Sequence[Hashable] = ()
) -> dict[str, Answer]:
    """The outputs that have as much for each image, of all images.

    One whose rows are those of all images of a batch comes as [images, rows, ...]. What is behind a NonMaxSuppression,
    sums up a batch, or compares images with each other, is left out: its shape depends on more than the inputs' shapes.

    Args:
        parts: by name, what each batch gave.
        sizes: images of each batch.
        kinds: for each batch what its inputs' shapes have in common with others'; without that all are alike.
    """
    kinds = kinds or [None] * len(sizes)
    found: dict[str, Answer] = {}
    for name, given in parts.items():
        shapes: dict[Hashable, set[tuple[float, ...]]] = {}
        for part, size, kind in zip(given, sizes, kinds, strict=True):
            shapes.setdefault(kind, set()).add((len(part) / size, *part.shape[1:]) if part.ndim else (0.0,))
        if any(len(each) > 1 or next(iter(each))[0] < 1 for each in shapes.values()):
            continue
        answer = by_sample(given, sizes)
        if answer is not None:
            found[name] = answer
    return found


def is_class_scores(answer: Answer) -> TypeGuard[Array]:
    """Whether an output has one score for each of several classes, [samples, classes] or [samples, classes, 1, 1]."""
    return (
        isinstance(answer, np.ndarray)
        and answer.dtype.kind == "f"
        and answer.ndim >= 2
        and answer.shape[1] > 1
        and answer[0].size == answer.shape[1]
    )


def are_classes(outputs: Mapping[str, Answer]) -> bool:
    """Whether the only output has one score for each of several classes."""
    return len(outputs) == 1 and is_class_scores(next(iter(outputs.values())))


def distances(wanted: Mapping[str, Answer], given: Mapping[str, Answer], *, temperature: float = 1.0) -> Doubles:
    """How far answers are from the float model's, sample by sample [samples]; not finite where one is no number.

    Args:
        wanted: the float model's answers.
        given: those to compare, by the same names; one that is missing is infinitely far.
        temperature: what logits are divided by; of a network that gives probabilities these are their logarithms.

    Returns:
        KL divergence in nats for a classifier, else `relative_errors`.
    """
    if not are_classes(wanted):
        return relative_errors(wanted, given)
    ((name, reference),) = wanted.items()
    scores = np.asarray(reference).reshape(len(reference), -1)
    other = given.get(name)
    if not isinstance(other, np.ndarray) or other.size != scores.size:
        return np.full(len(scores), math.inf)
    probabilities = are_probabilities(scores)
    logits, others = (as_logits(each, probabilities=probabilities) for each in (scores, other.reshape(scores.shape)))
    return kl_by_image(logits / temperature, others / temperature)


def fair_temperature(answers: Mapping[str, Answer]) -> float:
    """What a classifier's logits are divided by so that every image has a say: their mean standard deviation.

    A network is sure of the images that it was trained on, and softmax then hides all but the grossest errors
    (temperature; Hinton et al. 2015, "Distilling the knowledge in a neural network").

    Returns:
        At least 1; 1 for any other network.
    """
    if not are_classes(answers):
        return 1.0
    (answer,) = answers.values()
    scores = np.asarray(answer).reshape(len(answer), -1)
    logits = as_logits(scores, probabilities=are_probabilities(scores))
    return max(1.0, float(logits.std(axis=1, dtype=np.float64).mean()))  # logits may be as large as 1e30


def relative_errors(wanted: Mapping[str, Answer], given: Mapping[str, Answer]) -> Doubles:
    """Squared error of all outputs, each relative to its channels' variance, in the mean over outputs [samples].

    An output that is missing or of another shape is infinitely far; where shapes differ from sample to sample, an
    answer of another shape is as far as one that says nothing of its sample.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        errors = [relative_error(values, given.get(name)) for name, values in wanted.items()]
        return np.asarray(np.mean(errors, axis=0))


def relative_error(wanted: Answer, given: Answer | None) -> Doubles:
    """Squared error relative to each channel's variance, in the mean over channels and positions [samples]."""
    if given is None or len(given) != len(wanted):
        return np.full(len(wanted), math.inf)
    if isinstance(wanted, list):
        return _error_of_each(wanted, list(given))
    if isinstance(given, list) or wanted.shape != given.shape:
        return np.full(len(wanted), math.inf)
    if wanted.ndim == 1:  # a number for each image is one channel
        wanted, given = wanted[:, None], given[:, None]
    channels = 1 if wanted.ndim > 3 else -1
    wanted, given = np.moveaxis(wanted, channels, -1), np.moveaxis(given, channels, -1)
    variance = _floored(wanted.reshape(-1, wanted.shape[-1]).var(axis=0, dtype=np.float64))
    error = np.square(wanted.astype(np.float64) - given) / variance
    return np.asarray(error.reshape(len(error), -1).mean(axis=1))


def _error_of_each(wanted: Sequence[Array], given: Sequence[Array]) -> Doubles:
    rows = [by_channel(sample) for sample in wanted]
    if len({row.shape[1] for row in rows}) > 1:  # the axis that differs is no axis of channels
        rows = [row.reshape(-1, 1) for row in rows]
    variance = _floored(np.concatenate(rows).var(axis=0, dtype=np.float64))
    errors = np.empty(len(rows))
    for index, (row, sample, other) in enumerate(zip(rows, wanted, given, strict=True)):
        if sample.shape != other.shape:
            errors[index] = UNRELATED
        elif not sample.size:
            errors[index] = 0.0
        else:
            difference = row.astype(np.float64) - by_channel(other).reshape(row.shape)
            errors[index] = float((np.square(difference) / variance).mean())
    return errors


def by_channel(sample: Array) -> Array:
    """One sample as [positions, channels]: maps have channels first, rows last."""
    if sample.ndim < 2:
        return sample.reshape(1, -1)
    x = np.moveaxis(sample, 0, -1) if sample.ndim > 2 else sample
    return x.reshape(-1, x.shape[-1])


def _floored(variance: Doubles) -> Doubles:
    """Variances of channels [channels], those that hardly vary with what an average one of the output has a part of."""
    return np.asarray(
        np.maximum(variance, max(LEAST_VARIANCE * float(variance.mean()), float(np.finfo(np.float32).tiny)))
    )

"""Samples in batches of the size that a model takes: the only module that handles how many go into a run.

Most models take any number. Others have it fixed by their inputs, or mix what they get: a Reshape with batch 1 baked
in, rows that are time steps, sums over the batch, boxes of all images behind a NonMaxSuppression. Shapes mostly show
that a graph keeps samples apart (`lowbit.graph.rows`); where they do not, two samples are run together and alone, and
unless the answers are the same, each sample has a run of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from lowbit.data.dataset import Batch, Dataset
from lowbit.data.opening import bound
from lowbit.data.samples import Samples
from lowbit.engines import fed, open_session
from lowbit.errors import DataError, EngineError
from lowbit.graph.light_model import LightModel
from lowbit.graph.memory import samples_that_fit
from lowbit.graph.model import Model
from lowbit.graph.rows import keeps_samples_apart
from lowbit.processor import cores, in_order

Array = np.ndarray[Any, np.dtype[Any]]
MOST_CONCURRENT = 4  # batches that run at the same time; further threads work inside their operators
SAME = 1e-3  # of an output's largest magnitude: kernels differ a little from batch to batch

_apart: WeakKeyDictionary[Model, bool] = WeakKeyDictionary()


class Batches:
    """Inputs of a model, batch by batch; every iteration starts again at the first sample.

    Args:
        model: the prepared model. If it takes a fixed number of samples, those that do not fill a run are left out.
        data: labels are not used.
        size: samples per run, used where the model does not fix it.
        limit: maximum number of samples; None for all.

    Attributes:
        fixed: whether the model decides how many samples go into a run.

    Raises:
        DataError: too few samples for one run, or data for another model.
    """

    def __init__(self, model: Model, data: Dataset, size: int, *, limit: int | None = None) -> None:
        self.data = bound(data, model)
        fixed = samples_per_run(model, self.data)
        self.fixed = fixed is not None
        self.size = fixed or min(size, samples_that_fit(model.ir))
        self.limit = data.count if limit is None else min(limit, data.count)
        self.count = self.limit // self.size if self.fixed else -(-self.limit // self.size)
        if self.count == 0:
            raise too_few(self.data, self.size, self.limit)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.data.batches(self.size, limit=self.limit):
            if not self.fixed or len(batch) == self.size:
                yield batch


def outputs_of(
    content: bytes | LightModel, batches: Sequence[Batch] | Batches, *, threads: int = 0
) -> Iterator[tuple[Batch, dict[str, Array]]]:
    """Each batch, and what a network gives for it by name, in order.

    Several batches run at the same time, each in one thread, rather than one batch in several threads: the network has
    a hundred small operators, and threads that wait for each other at every one of them took 1.8 times the processor
    time (MobileNetV2, two cores).

    Args:
        content: what runs: a file, or a light model.
        batches: its inputs.
        threads: total number of threads; 0 takes one per processor core.
    """
    threads = threads or cores()
    concurrent = max(1, min(threads, MOST_CONCURRENT, len(batches)))
    session = open_session(content, threads=max(1, threads // concurrent))

    def run(batch: Batch) -> tuple[Batch, dict[str, Array]]:
        return batch, session.run(fed(session, batch.inputs))

    return in_order(run, batches, threads=concurrent, ahead=0)


def too_few(data: Dataset, size: int, count: int) -> DataError:
    """What is said where there are fewer samples than one run takes."""
    if size == 1:
        return DataError("there are no samples.", where=data.name, remedy="Provide at least one.")
    return DataError(
        f"the model has a fixed batch size of {size}, but there are only {count} samples.",
        where=data.name,
        remedy=f"Provide at least {size}.",
    )


def as_runs(model: Model, data: Dataset) -> Dataset:
    """The data set bound to a model; items of several rows as they are if the model's rows depend on each other.

    Raises:
        DataError: too few samples for one run, or data for another model.
    """
    data = bound(data, model)
    fixed = samples_per_run(model, data)
    if isinstance(data, Samples) and data.items_are_runs and fixed == 1 and fixed_batch(model, data) is None:
        return data.as_given()
    if fixed is not None and data.count < fixed:
        raise too_few(data, fixed, data.count)
    return data


def samples_per_run(model: Model, data: Dataset) -> int | None:
    """How many samples a run takes: what the inputs fix, 1 where the model would mix them, or None for any number."""
    fixed = fixed_batch(model, data)
    if fixed is not None or (isinstance(data, Samples) and data.whole):
        return fixed or 1
    if model not in _apart:
        pair = None if keeps_samples_apart(model) else next(iter(data.batches(2)))
        if pair is not None and len(pair) < 2:
            return 1  # other samples may tell more
        _apart[model] = pair is None or _answers_apart(model, pair)
    return None if _apart[model] else 1


def fixed_batch(model: Model, data: Dataset) -> int | None:
    """The first dimension of the inputs that samples go to, if that is a number and samples are their rows."""
    if isinstance(data, Samples) and data.whole:
        return None
    firsts = {info.shape[0] for info in model.inputs if info.shape and info.name not in data.others}
    numbers = {first for first in firsts if isinstance(first, int)}
    return min(numbers) if numbers else None


def _answers_apart(model: Model, pair: Batch) -> bool:
    """Whether two samples have the same answers together as alone."""
    session = open_session(model.light(), threads=1)
    try:
        first, second = (session.run(pair.part(i, i + 1).inputs) for i in (0, 1))
        together = session.run(pair.inputs)
    except EngineError:
        return False
    return all(_joined(first[name], second[name], both) for name, both in together.items())


def _joined(first: Array, second: Array, both: Array) -> bool:
    if first.ndim == 0 or first.shape[1:] != second.shape[1:] or both.shape != (2 * len(first), *first.shape[1:]):
        return False
    alone = np.concatenate([first, second]).astype(np.float64)
    reach = float(np.abs(alone[np.isfinite(alone)]).max(initial=0.0))
    return bool(np.allclose(alone, both.astype(np.float64), rtol=0, atol=SAME * reach, equal_nan=True))


def float_inputs(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs that are floats, whose ranges can be measured."""
    return {name: x for name, x in inputs.items() if x.dtype.kind == "f"}

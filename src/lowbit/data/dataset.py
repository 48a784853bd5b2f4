"""What every pass over data takes: samples that can be read as often as needed, batch by batch, as a model's inputs.

`Images` (lowbit.data.images) turns pictures into one input; `Samples` (lowbit.data.samples) hold arrays for inputs of
any number, type and shape.
"""

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lowbit.data.constants import Constant
from lowbit.data.sources import Labels, Targets
from lowbit.errors import DataError

Array = npt.NDArray[Any]
ONLY = ""  # name of the input of images that are not bound to a model yet: its only one


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples as a model takes them.

    Args:
        inputs: arrays by input name: [n, ...] each, but for inputs without a batch dimension, of which a run takes one.
        labels: int64 [n], or None.
        indices: int64 [n], positions within the data set they come from.
        whole: names of the inputs that have no batch dimension, and so cannot be cut or joined.
    """

    inputs: dict[str, Array]
    labels: Labels | None
    indices: npt.NDArray[np.int64]
    whole: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def x(self) -> Array:
        """The only input.

        Raises:
            DataError: there are several.
        """
        if len(self.inputs) != 1:
            raise DataError(f"there are {len(self.inputs)} inputs ({', '.join(self.inputs)}), expected one.")
        return next(iter(self.inputs.values()))

    def part(self, start: int, end: int) -> "Batch":
        """Samples `start` to `end`; a single sample is itself, since its arrays may have no batch dimension."""
        if (start, end) == (0, len(self)):
            return self
        return self._taking(np.arange(start, end))

    def filled(self, size: int) -> "Batch":
        """A batch of `size` samples: itself, or its samples again and again."""
        return self if len(self) == size else self._taking(np.resize(np.arange(len(self)), size))

    def _taking(self, rows: npt.NDArray[np.int64]) -> "Batch":
        labels = None if self.labels is None else self.labels[rows]
        inputs = {name: x if name in self.whole else x[rows] for name, x in self.inputs.items()}
        return Batch(inputs, labels, self.indices[rows], self.whole)


Self = TypeVar("Self", bound="Dataset")


class Dataset(Protocol):
    """Samples with or without labels, opened once and read as often as needed, always in the same order.

    >>> data = lowbit.open_data("test", "model.onnx")
    >>> [(len(batch), batch.x.shape) for batch in data.batches(8)]
    [(8, (8, 3, 16, 16)), (2, (2, 3, 16, 16))]
    """

    @property
    def name(self) -> str:
        """What the user calls them: a folder or file name, builtin:test, ..."""
        ...

    @property
    def count(self) -> int:
        """Number of samples."""
        ...

    @property
    def labels(self) -> Labels | None:
        """int64 [count], or None."""
        ...

    @property
    def targets(self) -> Targets | None:
        """What each sample should give, where that is no class number, or None (see `lowbit.data.targets`)."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """In the order of the labels, or None."""
        ...

    @property
    def others(self) -> Mapping[str, Constant]:
        """The inputs that are the same for every sample."""
        ...

    @property
    def origin(self) -> Hashable:
        """Equal origins and equal places mean the same sample."""
        ...

    @property
    def places(self) -> tuple[Hashable, ...]:
        """Where each sample is, within the origin."""
        ...

    @property
    def digests(self) -> tuple[str, ...]:
        """A hash of each sample's content; reads all samples that no pass has read yet."""
        ...

    def where(self, index: int) -> str:
        """How an error message names one sample."""
        ...

    def batches(self, size: int = 32, *, limit: int | None = None) -> Iterator[Batch]:
        """The samples in order, at most `size` at a time, the first `limit` of them."""
        ...

    def subset(self: Self, limit: int, *, seed: int = 0) -> Self:
        """`limit` of the samples, each class in proportion, in the same order."""
        ...

    def apart(self: Self, count: int, *, seed: int = 0) -> tuple[Self, Self]:
        """The others and `count` of the samples, chosen as by `subset`."""
        ...

    def select(self: Self, chosen: Sequence[int]) -> Self:
        """The samples of these numbers only, in this order."""
        ...

    def fingerprint(self) -> str:
        """Hex SHA-256 of all digests with their labels; does not depend on names or order."""
        ...


def whole_inputs(others: Mapping[str, Constant]) -> frozenset[str]:
    """Names of constants without a batch dimension."""
    return frozenset(name for name, constant in others.items() if constant.whole)


def digest_of(*arrays: Array) -> str:
    """Hex SHA-256 of types, shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def fingerprint_of(digests: Sequence[str], labels: Labels | None, targets: Targets | None = None) -> str:
    """Hex SHA-256 of all digests with their labels or targets, in any order."""
    known = ["-"] * len(digests) if labels is None else labels.tolist()
    if targets is not None:
        known = [
            digest_of(*(target[key] for key in sorted(target)) if isinstance(target, Mapping) else (target,))
            for target in targets
        ]
    lines = sorted(f"{digest} {label}\n" for digest, label in zip(digests, known, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_labels(data: Dataset, classes: int) -> None:
    """Refuse labels that a model with `classes` outputs cannot predict; samples without labels are accepted.

    Raises:
        DataError: a label beyond the outputs, or a number of classes other than the number of outputs.
    """
    labels, names = data.labels, data.class_names
    if labels is None:
        return
    if names is not None and len(names) != classes:
        raise DataError(
            f"{len(names)} classes ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''}), the model has"
            f" {classes} outputs.",
            where=data.name,
            remedy="Give images of the model's classes, or name all its classes in the order of its outputs.",
        )
    if len(labels) and int(labels.max()) >= classes:
        index = int(labels.argmax())
        raise DataError(
            f"the label is {labels[index]}, but the model has {classes} outputs (0 to {classes - 1}).",
            where=data.where(index),
            remedy="Count classes from 0, or choose images of the model's classes.",
        )


def overlap(a: Dataset, b: Dataset) -> int:
    """How many samples of `a` are also in `b`, by content.

    Samples at the same place (the same file, the same index of the same array) count as the same without being read, so
    that comparing a folder with itself is free.
    """
    there = set(b.places) if a.origin == b.origin else set()
    elsewhere = [i for i, place in enumerate(a.places) if place not in there]
    if not elsewhere:
        return a.count
    known = set(b.digests)
    # `a.digests` reads all of `a`, but is cached: the report needs it for the fingerprint anyway.
    digests = a.digests
    return a.count - len(elsewhere) + sum(digests[i] in known for i in elsewhere)

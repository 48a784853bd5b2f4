"""Samples held in memory: decoded once, however many candidates are measured on them, and sent to workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.data.dataset import Dataset
from lowbit.data.samples import Place, Samples

BATCH = 32
MOST_BYTES = 1 << 30  # of samples that are held

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class _Items:
    """Items by number."""

    arrays: tuple[Mapping[str, Array], ...]

    def __call__(self, number: int) -> Mapping[str, Array]:
        return self.arrays[number]


def held(data: Dataset, *, most_bytes: float = MOST_BYTES) -> Dataset:
    """The samples in memory; the data set itself where they would take more than `most_bytes`."""
    items: list[Mapping[str, Array]] = []
    places: list[Place] = []
    taken = 0
    constant = frozenset(data.others)
    for batch in data.batches(BATCH):
        whole = any(name in batch.whole for name in batch.inputs if name not in constant)
        item = {name: x for name, x in batch.inputs.items() if name not in constant}
        places += [(len(items), None)] if whole else [(len(items), row) for row in range(len(batch))]
        items.append(item)
        taken += sum(x.nbytes for x in item.values())
        if taken > most_bytes:
            return data
    return Samples(
        data.name, data.fingerprint(), _Items(tuple(items)), tuple(places), data.labels, data.class_names, data.targets,
        data.others, known_digests=tuple(data.digests),
    )  # fmt: skip

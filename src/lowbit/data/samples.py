"""Arrays for a model's inputs, of any number, type and shape: the data set of every network that does not just see.

Data come as items: one array for each input. An item's arrays have a batch dimension, and then each row is a sample, or
they are what one run takes and the item itself is the sample: where the model has no batch dimension, or where its rows
turn out to depend on each other (`as_given`). Numbers pass through as they are, integers uncast.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.data.constants import Constant, of_type
from lowbit.data.dataset import Batch, digest_of, fingerprint_of, whole_inputs
from lowbit.data.sampling import check_limit, stratified
from lowbit.data.sources import Labels, Targets, chosen_of
from lowbit.errors import DataError
from lowbit.graph.model import ValueInfo
from lowbit.printable import brief

Array = npt.NDArray[Any]
Item = Mapping[str, Array]
ITEMS_HELD = 2
Place = tuple[int, int | None]  # an item, and the row in it; None: the item as a whole


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples that are arrays, one for each input. Made by `open_data`.

    Args:
        name: what the user calls them.
        origin: equal origins and equal places mean the same sample.
        read: number of an item -> its arrays by input name, [rows, ...], or whole inputs.
        places: of each sample.
        labels: int64 [count], or None.
        class_names: in the order of the labels, or None.
        targets: what each sample should give, where that is no class number, or None.
        others: the inputs that are the same for every sample.
        items_are_runs: whether each item is what someone would run, not just a part of all samples.
        known_digests: of the samples that these were made from, which they are to be known by; None for their own.
    """

    name: str
    origin: Hashable
    read: Callable[[int], Item]
    places: tuple[Place, ...]
    labels: Labels | None = None
    class_names: tuple[str, ...] | None = None
    targets: Targets | None = None
    others: Mapping[str, Constant] = field(default_factory=dict)
    items_are_runs: bool = True
    known_digests: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"<Samples {brief(self.name)}: {self.count:,}>"

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.places)

    def __len__(self) -> int:
        return self.count

    @property
    def whole(self) -> bool:
        """Whether each sample is an item, which no other can be joined to."""
        return any(row is None for _, row in self.places)

    def where(self, index: int) -> str:
        """How an error message names one sample."""
        item, row = self.places[index]
        return f"{self.name}, sample {item if row is None else index}"

    def sample(self, index: int) -> dict[str, Array]:
        """The arrays of one sample, as a run of it alone takes them."""
        item, row = self.places[index]
        arrays = self.read(item)
        return {name: x if row is None else x[row : row + 1] for name, x in arrays.items()}

    def batches(self, size: int = 32, *, limit: int | None = None) -> Iterator[Batch]:
        """The samples in order, at most `size` at a time; fewer where shapes change or items are taken whole.

        Raises:
            DataError: a size or limit below 1; later, an item that cannot be read.
        """
        if size < 1:
            raise DataError(f"batch size must be at least 1, not {size}.")
        if limit is not None:
            check_limit(limit)
        return self._batches(size, self.count if limit is None else min(limit, self.count))

    def _batches(self, size: int, count: int) -> Iterator[Batch]:
        start, held = 0, list[dict[str, Array]]()
        for index in range(count):
            sample = self.sample(index)
            joins = bool(held) and self.places[index][1] is not None and _shapes(sample) == _shapes(held[0])
            if held and (len(held) == size or not joins):
                yield self._batch(start, held)
                start, held = index, []
            held.append(sample)
        if held:
            yield self._batch(start, held)

    def _batch(self, start: int, samples: Sequence[Mapping[str, Array]]) -> Batch:
        count = len(samples)
        inputs = {
            name: x if count == 1 else np.concatenate([s[name] for s in samples]) for name, x in samples[0].items()
        }
        inputs |= {name: constant.repeated(count) for name, constant in self.others.items()}
        indices = np.arange(start, start + count, dtype=np.int64)
        labels = None if self.labels is None else self.labels[indices]
        whole = frozenset(inputs) if self.whole else whole_inputs(self.others)
        return Batch(inputs, labels, indices, whole)

    def subset(self, limit: int, *, seed: int = 0) -> "Samples":
        """`limit` of the samples, each class in proportion (largest remainders first), in the same order.

        Raises:
            DataError: `limit` is not positive.
        """
        return self.select(stratified(self.labels, self.count, limit, seed=seed))

    def apart(self, count: int, *, seed: int = 0) -> tuple["Samples", "Samples"]:
        """The others and `count` of the samples, chosen as by `subset`.

        Raises:
            DataError: `count` is not positive.
        """
        chosen = stratified(self.labels, self.count, count, seed=seed)
        return self.select(sorted(set(range(self.count)) - set(chosen))), self.select(chosen)

    def as_given(self) -> "Samples":
        """Each item as one sample, for a model whose rows depend on each other; labels of single rows stay."""
        if self.whole:
            return self
        items = dict.fromkeys(item for item, _ in self.places)
        single = len(items) == self.count
        return dataclasses.replace(
            self,
            places=tuple((item, None) for item in items),
            labels=self.labels if single else None,
            targets=self.targets if single else None,
            known_digests=self.known_digests if single else None,
        )

    def select(self, chosen: Sequence[int]) -> "Samples":
        """The samples of these numbers only, in this order."""
        labels = None if self.labels is None else self.labels[np.asarray(chosen, dtype=np.int64)]
        places = tuple(self.places[i] for i in chosen)
        known = None if self.known_digests is None else tuple(self.known_digests[i] for i in chosen)
        targets = chosen_of(self.targets, chosen)
        return dataclasses.replace(self, places=places, labels=labels, targets=targets, known_digests=known)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each sample's arrays, in the order of their names."""
        if self.known_digests is not None:
            return self.known_digests
        samples = (self.sample(index) for index in range(self.count))
        return tuple(digest_of(*(sample[name] for name in sorted(sample))) for sample in samples)

    def fingerprint(self) -> str:
        """Hex SHA-256 of all digests with their labels; does not depend on names or order."""
        return fingerprint_of(self.digests, self.labels, self.targets)


def samples_of(
    items: Sequence[Item] | Callable[[int], Item],
    shapes: Sequence[Mapping[str, tuple[int, ...]]],
    inputs: Sequence[ValueInfo],
    *,
    name: str,
    origin: Hashable,
) -> Samples:
    """Samples of items whose arrays are known to fit the inputs: rows where all have the same number, else items.

    Args:
        items: by number; [rows, ...] each, or whole inputs.
        shapes: of each item's arrays.
        inputs: that the arrays are for.
        name: for messages.
        origin: see `Samples`.
    """
    infos = {info.name: info for info in inputs}
    read = items if callable(items) else items.__getitem__

    @lru_cache(ITEMS_HELD)  # samples of an item come one after the other, and each is only a part of it
    def typed(number: int) -> Item:
        where = f"{name}, item {number}"
        return {key: of_type(x, infos[key].dtype, f"{where}, {key!r}".__str__) for key, x in read(number).items()}

    rows = [{shape[0] if shape else 0 for shape in item.values()} for item in shapes]
    by_row = all(len(counts) == 1 and 0 not in counts for counts in rows)
    by_row &= all(len(item[key]) == len(infos[key].shape) for item in shapes for key in item)
    places: list[Place] = []
    for number, counts in enumerate(rows):
        places += [(number, row) for row in range(next(iter(counts)))] if by_row else [(number, None)]
    return Samples(name, origin, typed, tuple(places))


def _shapes(sample: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: x.shape for name, x in sample.items()}

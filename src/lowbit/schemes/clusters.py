"""Values from a code book: k-means on the weights themselves, one book a tensor, a channel or a group of channels."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lowbit.errors import SchemeError
from lowbit.schemes.codes import ClusterCodes, Floats
from lowbit.schemes.kmeans import kmeans_1d, kmeans_rows
from lowbit.schemes.linear import check_sharing, finite_float32


@dataclass(frozen=True)
class Clusters:
    """Values from a code book of 2^bits entries.

    Args:
        bits: of an index, 1 to 8.
        per: what shares a code book: "tensor", "channel", or "group" of consecutive output channels.
        group_size: channels that share a book, with per="group"; the last group may be smaller.

    Raises:
        SchemeError: impossible hyper-parameters.
    """

    bits: int
    per: str = "tensor"
    group_size: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise SchemeError(f"code books of {self.bits} bits are not possible.", remedy="Choose 1 to 8 bits.")
        check_sharing(self.per, self.group_size)

    @property
    def name(self) -> str:
        """For people, such as `cluster4/tensor`."""
        return f"cluster{self.bits}/{self.per}" + (f" of {self.group_size}" if self.group_size else "")

    def channels_per_book(self, channels: int) -> int:
        """How many consecutive channels share a book, out of `channels`."""
        return {"tensor": channels, "channel": 1, "group": min(channels, self.group_size or 1)}[self.per]

    def encode(self, x: Floats, axis: int = 0, *, importance: Floats | None = None) -> ClusterCodes:
        """Code books and indices with the least (weighted) squared error.

        Args:
            x: float32 of any shape.
            axis: dimension of the output channels.
            importance: weight of each value's squared error, of x's shape; all alike without it.

        Raises:
            SchemeError: NaN or infinite values.
        """
        x = finite_float32(x)
        channels = x.shape[axis]
        share = self.channels_per_book(channels)
        rows = _channels_first(x, axis)
        weights = None if importance is None else _channels_first(importance, axis)
        books, indices = _solve(rows, weights, 1 << self.bits, share)
        indices = np.moveaxis(indices.reshape(np.moveaxis(x, axis, 0).shape), 0, axis)
        return ClusterCodes(np.ascontiguousarray(indices), books, self.bits, axis, share)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `Clusters(**data)` without "scheme" gives an equal value."""
        return {"scheme": "cluster", **asdict(self)}


def _channels_first(x: Floats, axis: int) -> Floats:
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def _solve(rows: Floats, weights: Floats | None, k: int, share: int) -> tuple[Floats, np.ndarray[Any, Any]]:
    """Books [books, k] and indices [channels, columns] for rows [channels, columns], `share` rows to a book."""
    channels, columns = rows.shape
    if share == 1:
        centers, indices = kmeans_rows(rows, k, weights=weights)
        return centers.astype(np.float32), indices
    books, found = [], []
    for start in range(0, channels, share):
        part = rows[start : start + share]
        mass = None if weights is None else weights[start : start + share].reshape(-1)
        centers, indices = kmeans_1d(part.reshape(-1), k, weights=mass)
        books.append(centers.astype(np.float32))
        found.append(indices.reshape(-1, columns))
    return np.stack(books), np.concatenate(found)

"""Images in the batches that a model takes: the one place that knows of a batch size that the model fixes."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lowbit.data.images import Images
from lowbit.errors import DataError
from lowbit.graph.model import Model

Array = np.ndarray[Any, np.dtype[Any]]


class Batches:
    """Inputs of a model, batch by batch; every iteration begins with the first image again.

    Args:
        model: the prepared model. If it fixes its batch size, images that do not fill a whole batch are left out.
        images: labels are not used.
        size: images per batch, where the model leaves that open.
        limit: maximum number of images; None takes all.

    Raises:
        DataError: there are too few images for one batch.
    """

    def __init__(self, model: Model, images: Images, size: int, *, limit: int | None = None) -> None:
        self.images = images
        self.fixed = model.fixed_batch is not None
        self.size = model.fixed_batch or size
        self.limit = images.count if limit is None else min(limit, images.count)
        self.count = self.limit // self.size if self.fixed else -(-self.limit // self.size)
        if self.count == 0:
            needed = self.size if self.fixed else 1
            raise DataError(
                f"there are too few images: {self.limit}.",
                where=images.name,
                remedy=f"Give at least {needed}" + (f": the model takes batches of {needed}." if self.fixed else "."),
            )

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Array]:
        """Each batch's input [images, ...], as the model takes it."""
        for part in self.images.batches(self.size, limit=self.limit):
            if not self.fixed or len(part.x) == self.size:
                yield part.x

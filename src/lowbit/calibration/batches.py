"""Images in batches of the size that a model takes: the only module that handles a batch size fixed by the model."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lowbit.data.images import Images
from lowbit.errors import DataError
from lowbit.graph.model import Model

Array = np.ndarray[Any, np.dtype[Any]]


class Batches:
    """Inputs of a model, batch by batch; every iteration starts again at the first image.

    Args:
        model: the prepared model. If it has a fixed batch size, images that do not fill a whole batch are left out.
        images: labels are not used.
        size: images per batch, used where the model does not fix it.
        limit: maximum number of images; None for all.

    Raises:
        DataError: too few images for one batch.
    """

    def __init__(self, model: Model, images: Images, size: int, *, limit: int | None = None) -> None:
        self.images = images
        self.fixed = model.fixed_batch is not None
        self.size = model.fixed_batch or size
        self.limit = images.count if limit is None else min(limit, images.count)
        self.count = self.limit // self.size if self.fixed else -(-self.limit // self.size)
        if self.count == 0:
            fixed = f"the model has a fixed batch size of {self.size}, but there are only {self.limit} images."
            raise DataError(
                fixed if self.fixed else "there are no images.",
                where=images.name,
                remedy=f"Provide at least {self.size} images." if self.fixed else "Provide at least 1 image.",
            )

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Array]:
        """The input of each batch, [images, ...], as the model takes it."""
        for part in self.images.batches(self.size, limit=self.limit):
            if not self.fixed or len(part.x) == self.size:
                yield part.x

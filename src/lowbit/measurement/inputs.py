"""What a file gets as input: floats, or image bytes where it normalizes them itself."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.data.images import Batch, Images
from lowbit.errors import DataError
from lowbit.formats.input_bytes import byte_layout


@dataclass(frozen=True)
class ByteImages:
    """The same images, resized as the model wants them and left as uint8."""

    images: Images
    layout: str

    @property
    def count(self) -> int:
        """Number of images."""
        return self.images.count

    def batches(self, size: int = 32, *, limit: int | None = None) -> Iterator[Batch]:
        """As `Images.batches`, with x uint8 in the layout of the file."""
        for batch in self.images.batches(size, limit=limit):
            yield dataclasses.replace(batch, x=batch.x.astype(np.uint8))


def as_taken(images: Any, model: bytes | Path | str) -> Any:  # noqa: ANN401 - any source of batches
    """The images in the form that a file takes: themselves, or their bytes.

    Raises:
        DataError: the file takes bytes and there are only normalized arrays.
    """
    layout = byte_layout(model)
    if layout is None:
        return images
    how = images.preprocessing if isinstance(images, Images) else None
    if how is None or images.source.values == "model":
        raise DataError(
            "the file takes image bytes, but these arrays were normalized for the float model.",
            where=getattr(images, "name", ""),
            remedy="Give images or uint8 arrays.",
        )
    plain = dataclasses.replace(how, layout=layout, scale=1.0, mean=(0.0,) * how.channels, std=(1.0,) * how.channels)
    return ByteImages(dataclasses.replace(images, preprocessing=plain), layout)


def first_batch(images: Any, batch: int) -> NDArray[Any]:  # noqa: ANN401 - any source of batches
    """One batch; where there are fewer images than that they repeat."""
    x = next(iter(images.batches(batch))).x
    return np.ascontiguousarray(np.resize(x, (batch, *x.shape[1:])) if len(x) < batch else x)

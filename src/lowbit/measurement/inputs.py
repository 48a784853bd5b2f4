"""What a file gets as input: the model's own arrays, or image bytes where it normalizes them itself."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.data.dataset import Dataset
from lowbit.data.images import Images
from lowbit.errors import DataError
from lowbit.formats.input_bytes import byte_layout

File = bytes | Path | str  # an ONNX or LiteRT file


def as_taken(data: Dataset, model: File) -> Dataset:
    """The data in the form that a file takes: itself, or images as bytes.

    Raises:
        DataError: the file takes bytes and there are only normalized arrays.
    """
    if not isinstance(data, Images):
        return data
    layout = byte_layout(model)
    if layout is None or data.dtype == np.uint8:
        return data
    how = data.preprocessing
    if how is None or data.source.values == "model":
        raise DataError(
            "the file takes image bytes, but these arrays were normalized for the float model.",
            where=data.name,
            remedy="Give images or uint8 arrays.",
        )
    plain = dataclasses.replace(how, layout=layout, scale=1.0, mean=(0.0,) * how.channels, std=(1.0,) * how.channels)
    return dataclasses.replace(data, preprocessing=plain, dtype=np.dtype(np.uint8))


def first_batch(data: Dataset, size: int) -> dict[str, NDArray[Any]]:
    """The inputs of one run; where there are fewer samples than that they repeat."""
    batch = next(iter(data.batches(size))).filled(size)
    return {name: np.asarray(x, order="C") for name, x in batch.inputs.items()}

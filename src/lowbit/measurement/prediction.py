"""Run a file on images and keep its outputs."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lowbit.engines import open_session
from lowbit.errors import DataError
from lowbit.measurement.inputs import as_taken
from lowbit.progress import SILENT, Progress


class LabelledBatch(Protocol):
    """What one batch must hold: `x` [n, ...] float32 and, where known, n labels."""

    @property
    def x(self) -> NDArray[np.float32]:
        """Inputs of the model."""
        ...

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class of each image."""
        ...


class BatchSource(Protocol):
    """What images must offer here; `lowbit.data.Images` does."""

    @property
    def count(self) -> int:
        """Number of images."""
        ...

    def batches(self, size: int = ..., *, limit: int | None = ...) -> Iterable[Any]:
        """Batches of `size` images, always in the same order."""
        ...


@dataclass(frozen=True)
class Prediction:
    """Raw outputs [images, classes] float32, and the labels [images] where there are any."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None


def predict(
    model: bytes | Path | str,
    images: BatchSource,
    *,
    engine: str = "onnxruntime",
    batch: int = 32,
    progress: Progress = SILENT,
    what: str = "predicting",
) -> Prediction:
    """First output of `model` for every image; trailing axes of one (as in [n, classes, 1, 1]) are dropped.

    A file that takes image bytes gets them.

    Args:
        model: an ONNX or LiteRT file.
        images: to predict.
        engine: runtime that runs the file.
        batch: images per run.
        progress: told after every batch.
        what: what the progress is called.

    Raises:
        EngineError: the runtime refuses the model or the images.
        DataError: no images, or outputs that are not one row per image.
    """
    images = as_taken(images, model)
    session = open_session(model, engine=engine, threads=0)
    name, result = session.input_names[0], session.output_names[0]
    outputs: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int64]] = []
    piece: LabelledBatch
    for piece in progress.track(images.batches(batch), what, total=-(-images.count // batch)):
        out = session.run({name: piece.x})[result]
        if (
            out.shape[:1] != piece.x.shape[:1]
            or out.size == 0
            or out.size // len(out) != out.shape[min(1, out.ndim - 1)]
        ):
            raise DataError(
                f"output '{result}' has shape {out.shape} for {len(piece.x)} images, not [images, classes].",
                remedy="lowbit measures classifiers with one output row per image.",
            )
        outputs.append(out.reshape(len(out), -1).astype(np.float32))
        if piece.labels is not None:
            labels.append(piece.labels)
    if not outputs:
        raise DataError("there are no images.", remedy="Name a folder that holds images.")
    return Prediction(np.concatenate(outputs), np.concatenate(labels) if len(labels) == len(outputs) else None)

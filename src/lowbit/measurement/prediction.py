"""Run a file on images and keep its outputs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lowbit.data.dataset import Dataset
from lowbit.engines import fed, open_session
from lowbit.errors import DataError
from lowbit.measurement.inputs import as_taken, repeated
from lowbit.progress import SILENT, Progress


@dataclass(frozen=True)
class Prediction:
    """Raw outputs [images, classes] float32, and the labels [images] where there are any."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Runs:
    """How many samples go into a run.

    Attributes:
        size: at most, or exactly.
        exactly: whether each run takes that many: then the last one is filled up with its own samples.
    """

    size: int = 32
    exactly: bool = False


def predict(
    model: bytes | Path | str,
    data: Dataset,
    *,
    engine: str = "onnxruntime",
    runs: Runs = Runs(),
    progress: Progress = SILENT,
    what: str = "predicting",
) -> Prediction:
    """First output of `model` for every sample; trailing axes of one (as in [n, classes, 1, 1]) are dropped.

    A file that takes image bytes gets them.

    Args:
        model: an ONNX or LiteRT file.
        data: samples to predict.
        engine: runtime that runs the file.
        runs: how many samples go into a run.
        progress: told after every batch.
        what: what the progress is called.

    Raises:
        EngineError: the runtime refuses the model or the samples.
        DataError: no samples, or outputs that are not one row per sample.
    """
    data = as_taken(data, model)
    session = open_session(model, engine=engine, threads=0)
    result = session.output_names[0]
    outputs: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int64]] = []
    for part in progress.track(data.batches(runs.size), what, total=-(-data.count // runs.size)):
        run = repeated(part, runs.size) if runs.exactly else part
        out = session.run(fed(session, run.inputs))[result]
        if out.shape[:1] != (len(run),) or out.size == 0 or out.size // len(out) != out.shape[min(1, out.ndim - 1)]:
            raise DataError(
                f"output '{result}' has shape {out.shape} for {len(run)} samples, not [samples, classes].",
                remedy="lowbit measures classifiers with one output row per sample.",
            )
        outputs.append(out.reshape(len(out), -1)[: len(part)].astype(np.float32))
        if part.labels is not None:
            labels.append(part.labels)
    if not outputs:
        raise DataError("there are no images.", remedy="Name a folder that holds images.")
    return Prediction(np.concatenate(outputs), np.concatenate(labels) if len(labels) == len(outputs) else None)

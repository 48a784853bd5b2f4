"""Try a recipe on a network of the zoo: quantize, write, run, compare; and the same with ONNX Runtime's own tool."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import lowbit
from lowbit.engines.session import ENGINES
from lowbit.formats.file_form import FileForm

Feeds = Mapping[str, np.ndarray]
CALIBRATION, EVALUATION = 11, 12  # seeds
MOST_DB = 99.0


def quantized(model: lowbit.Model, recipe: str, feeds: Feeds, *, effort: str = "fast") -> Any:
    """A model quantized with these samples."""
    return lowbit.quantize(model, recipe, calibration=samples(feeds), effort=effort)


def samples(feeds: Feeds) -> list[dict[str, np.ndarray]]:
    """One at a time, by the inputs' names."""
    count = len(next(iter(feeds.values())))
    return [{name: _as_loaded(x[i]) for name, x in feeds.items()} for i in range(count)]


def _as_loaded(x: np.ndarray) -> np.ndarray:
    """Networks in half precision are loaded in single precision."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def written(made: Any, engine: str) -> bytes:
    """The file that an engine gets."""
    row = ENGINES[engine]
    return made.to_bytes(FileForm(to=(row.integer_file if made.plan.recipe.integer else row.float_file).to))


def answers(content: bytes | Path, feeds: Feeds, engine: str = "onnxruntime") -> dict[str, np.ndarray]:
    """All outputs of a file."""
    return lowbit.open_session(content, engine=engine, threads=1).run(dict(feeds))


def sqnr(wanted: np.ndarray, given: np.ndarray) -> float:
    """What varies from sample to sample over the error, in decibels; at most `MOST_DB`."""
    assert wanted.shape == given.shape, f"the output has shape {given.shape}, not {wanted.shape}"
    wanted = wanted.astype(np.float64)
    signal, noise = np.square(wanted - wanted.mean(axis=0)).sum(), np.square(wanted - given).sum()
    if not np.isfinite(noise):
        return -MOST_DB
    return min(MOST_DB, 10 * float(np.log10(signal / noise))) if noise else MOST_DB


def sqnrs(wanted: Feeds, given: Feeds) -> dict[str, float]:
    """`sqnr` of each output."""
    return {name: sqnr(values, given[name]) for name, values in wanted.items()}


def quantize_static(path: Path, feeds: Feeds, output: Path) -> Path:
    """ONNX Runtime's static quantization: its own preprocessing, QDQ, minimum and maximum, per channel."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            count = len(next(iter(feeds.values())))
            self.feeds = ({name: x[i : i + 1] for name, x in feeds.items()} for i in range(count))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    with contextlib.redirect_stdout(io.StringIO()):
        quantization.quantize_static(
            str(prepared), str(output), Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
    return output

"""A model of any kind in a runtime, and arrays through it as people have them at hand."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from lowbit import engines
from lowbit.engines import ENGINES
from lowbit.errors import EngineError, ModelError
from lowbit.formats.litert.write import to_litert
from lowbit.formats.opening import opened
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model

Array = np.ndarray[Any, np.dtype[Any]]


class Made(Protocol):
    """What can become a file for an engine, such as a quantized model."""

    def bytes_for(self, engine: str) -> bytes:
        """The content of the file."""
        ...


@dataclass(frozen=True)
class Session:
    """A model in a runtime, ready to run; see `open_session`.

    Attributes:
        engine: the runtime, a row of `ENGINES`.
        input_names: in order.
        output_names: in order.

    >>> session = lowbit.open_session("model.onnx")
    >>> session
    <Session in onnxruntime: x -> logits>
    >>> session.run(np.zeros((1, 3, 16, 16)))["logits"].shape
    (1, 5)
    """

    engine: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    _runtime: engines.Session = field(repr=False)

    def __repr__(self) -> str:
        return f"<Session in {self.engine}: {', '.join(self.input_names)} -> {', '.join(self.output_names)}>"

    def run(self, inputs: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, Array]:
        """All outputs by name, for one batch.

        Args:
            inputs: an array for each input by name; for a model with one input the array alone. Numbers become arrays,
                and floats those that the model takes.

        Raises:
            EngineError: an input is missing or unknown, or the runtime refuses the arrays.
        """
        return self._runtime.run({name: _array(value) for name, value in self._named(inputs).items()})

    def _named(self, inputs: ArrayLike | Mapping[str, ArrayLike]) -> Mapping[str, ArrayLike]:
        names = self.input_names
        if not isinstance(inputs, Mapping):
            if len(names) != 1:
                raise EngineError(
                    f"the model has {len(names)} inputs, and there is one array.",
                    where=f"engine '{self.engine}'",
                    remedy=f"Give a dict with an array for each of {', '.join(names)}.",
                )
            return {names[0]: inputs}
        for word, some in (("missing", set(names) - set(inputs)), ("unknown", set(inputs) - set(names))):
            if some:
                raise EngineError(
                    f"the input '{min(map(str, some))}' is {word}.",
                    where=f"engine '{self.engine}'",
                    remedy=f"The inputs are {', '.join(names)}.",
                )
        return inputs


def _array(value: ArrayLike) -> Array:
    """Python's and numpy's own floats have 64 bits; models' have 32 if they do not say otherwise."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def open_session(
    model: Model | Made | str | Path | bytes,
    *,
    engine: str = "onnxruntime",
    threads: int = 0,
    optimized_to: Path | str | None = None,
) -> Session:
    """Load a model into a runtime, to run it.

    Args:
        model: a file (ONNX, LiteRT or an archive) or its content, a `Model`, or what `quantize` gives.
        engine: the runtime: "onnxruntime", "openvino" or "litert".
        threads: threads inside one operator; 0 leaves the number to the runtime.
        optimized_to: where to write the graph that ONNX Runtime really runs, for those who want to look at it.

    Raises:
        EngineError: unknown or missing engine, or one that refuses the model.
        ModelError: there is no such file, or the engine's format has no form for something in the model.

    >>> session = lowbit.open_session(lowbit.quantize("model.onnx", "linear8"), threads=1)
    >>> sorted(session.run(np.zeros((2, 3, 16, 16), np.float32)))
    ['logits']
    """
    target = None if optimized_to is None else Path(optimized_to)
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        content = _content(model, engine, Path(folder))
        runtime = engines.open_session(content, engine=engine, threads=threads, optimized_to=target)
    return Session(engine, runtime.input_names, runtime.output_names, runtime)


def _content(model: Model | Made | str | Path | bytes, engine: str, folder: Path) -> bytes | Path:
    """What the engine opens; an archive is unpacked into a folder."""
    if isinstance(model, bytes):
        return model
    if isinstance(model, str | Path):
        if not Path(model).is_file():
            raise ModelError("there is no such file.", where=str(model), remedy="Check the path.")
        return opened(model, folder)
    return bytes_for(model, engine)


def bytes_for(model: Model | Made, engine: str) -> bytes:
    """The content of a file that an engine opens."""
    if not isinstance(model, Model):
        return model.bytes_for(engine)
    to_tflite = engine in ENGINES and ENGINES[engine].reads == ".tflite"
    return to_litert(QuantizedGraph(model)) if to_tflite else model.to_bytes()

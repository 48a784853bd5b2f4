"""LiteRT (formerly TensorFlow Lite), an optional engine (extra `litert`), with XNNPACK as it comes.

A session takes the same float32 batch as the other engines: it turns channels-first images around where the file is
channels-last, rounds to the codes that the file's inputs hold, resizes the batch (or feeds images one by one where the
file's batch is fixed), and gives outputs back as float32 in the order of axes of the model the file was made from.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert

from lowbit.engines.litert_reader import LiteRtFile, read_litert
from lowbit.engines.messages import cause
from lowbit.engines.session import Array, Session
from lowbit.errors import EngineError
from lowbit.files import read_model_file

CHANNELS_LAST = (0, 2, 3, 1)
# Written by `lowbit.formats.litert.write`: {"inputs": {name: axes}, "outputs": ...}; stored axis i holds axis axes[i].
LAYOUT_KEY = "lowbit.layout"
LONGEST_JSON = 1 << 16
FEW_CHANNELS = 4
# The runtime says the same once for each tensor.
LONGEST_MESSAGE = 300


class LiteRtSession:
    """A .tflite file in LiteRT, on the CPU."""

    engine = "litert"

    def __init__(self, runtime: Any, layout: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:  # noqa: ANN401
        self._runtime = runtime
        self._inputs = {str(detail["name"]): detail for detail in runtime.get_input_details()}
        self._outputs = {str(detail["name"]): detail for detail in runtime.get_output_details()}
        self._layout = layout
        self.input_names: tuple[str, ...] = tuple(self._inputs)
        self.output_names: tuple[str, ...] = tuple(self._outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name."""
        try:
            stored = {name: self._turned(name, np.asarray(array)) for name, array in inputs.items()}
            if self._resize(stored):
                return self._invoke(stored)
            count = max(array.shape[0] for array in stored.values())
            pieces = [self._invoke({name: array[i : i + 1] for name, array in stored.items()}) for i in range(count)]
        except (ValueError, RuntimeError, KeyError, IndexError, MemoryError) as error:
            raise EngineError(f"the model does not run: {cause(error)}.", where="litert") from error
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in self.output_names}

    def _turned(self, name: str, x: Array) -> Array:
        """A batch with its axes in the order of the file."""
        wanted = tuple(self._inputs[name]["shape"][1:])
        order = self._layout.get("inputs", {}).get(name)
        if order is None and x.ndim == 4 and x.shape[1:] != wanted:
            order = CHANNELS_LAST
        if order is not None and len(order) == x.ndim:
            turned = x.transpose(order)
            # A batch that comes in the file's own order already is taken as it is.
            if turned.shape[1:] == wanted:
                return turned
        return x

    def _resize(self, stored: Mapping[str, Array]) -> bool:
        """Make room for a batch; False if it must be fed in pieces of one."""
        changed = False
        for name, array in stored.items():
            detail = self._inputs[name]
            if tuple(detail["shape"]) == array.shape:
                continue
            if detail["shape_signature"][0] != -1 and detail["shape"][0] == 1 and array.shape[0] > 1:
                return False
            self._runtime.resize_tensor_input(detail["index"], array.shape, strict=True)
            changed = True
        if changed:
            self._runtime.allocate_tensors()
            self._inputs = {str(detail["name"]): detail for detail in self._runtime.get_input_details()}
        return True

    def _invoke(self, stored: Mapping[str, Array]) -> dict[str, Array]:
        for name, array in stored.items():
            detail = self._inputs[name]
            if detail["dtype"] == np.float32:
                _copy(self._runtime.tensor(detail["index"])(), array)
            else:
                self._runtime.set_tensor(detail["index"], quantized(array, detail))
        self._runtime.invoke()
        results = {}
        for name, detail in self._outputs.items():
            values = dequantized(self._runtime.get_tensor(detail["index"]), detail)
            order = self._layout.get("outputs", {}).get(name)
            if order is not None and len(order) == values.ndim:
                values = values.transpose(np.argsort(order))
            results[name] = values
        return results


def _copy(target: Array, x: Array) -> None:
    """Copy a batch into the runtime's memory, turned around on the way.

    Channel by channel for images: a fifth of the time that numpy takes for the whole, and measured as latency.
    """
    if target.shape != x.shape:
        raise ValueError(f"an input has shape {list(x.shape)}, {list(target.shape)} was expected")
    if x.ndim != 4 or x.flags.c_contiguous or x.shape[3] > FEW_CHANNELS:
        target[...] = x
        return
    for channel in range(x.shape[3]):
        target[..., channel] = x[..., channel]


def quantized(x: Array, detail: Mapping[str, Any]) -> Array:
    """Float values as the codes that a tensor holds; integers pass as they are."""
    scale, zero_point = detail["quantization"]
    dtype = np.dtype(detail["dtype"])
    if x.dtype.kind in "iu" or not scale:
        return np.ascontiguousarray(x, dtype)
    limits = np.iinfo(dtype)
    codes = np.rint(x / np.float32(scale)) + zero_point
    return np.ascontiguousarray(codes.clip(limits.min, limits.max), dtype)


def dequantized(codes: Array, detail: Mapping[str, Any]) -> Array:
    """The float32 values of an output."""
    scale, zero_point = detail["quantization"]
    if codes.dtype.kind == "f" or not scale:
        return codes
    steps = (codes.astype(np.int32) - int(zero_point)).astype(np.float32)
    return np.asarray(steps * np.float32(scale))


def open_session(model: bytes | Path | str, *, threads: int, optimized_to: Path | None) -> Session:
    """See `lowbit.engines.session.open_session`; what is written to `optimized_to` is a list of operators."""
    where = "litert" if isinstance(model, bytes) else str(model)
    try:
        content = model if isinstance(model, bytes) else read_model_file(model)
        layout = _layout(read_litert(content, where))
        with _quiet():
            runtime = litert.Interpreter(model_content=content, num_threads=threads or None)
            runtime.allocate_tensors()
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        raise EngineError(f"LiteRT refuses the model: {cause(error)}.", where=where) from error
    if optimized_to is not None:
        optimized_to.write_text("".join(f"{name}\n" for name in executed(runtime)))
    return LiteRtSession(runtime, layout)


def version() -> str:
    """Version of the LiteRT package."""
    return metadata.version("ai-edge-litert")


def remarks(path: Path) -> tuple[str, ...]:
    """What a file leaves to LiteRT's own kernels, which are slower than XNNPACK's."""
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        listed = Path(folder) / "operators"
        open_session(path, threads=1, optimized_to=listed)
        names = [name for name in listed.read_text().split() if name != "DELEGATE"]
    counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    return (f"LiteRT runs these operators in its own slower kernels instead of XNNPACK: {counts}.",) if names else ()


def executed(runtime: Any) -> list[str]:  # noqa: ANN401 - untyped package
    """Names of the operators that really run, first to last: `DELEGATE` is one part of the graph run by XNNPACK.

    The interpreter still lists the nodes that a delegate took over, so this walks back from the outputs and lets a
    delegate go before the nodes it replaced.
    """
    nodes = runtime._get_ops_details()
    producer: dict[int, int] = {}
    for delegated in (False, True):
        for node in nodes:
            if (node["op_name"] == "DELEGATE") == delegated:
                producer |= {int(tensor): node["index"] for tensor in node["outputs"]}
    reached: set[int] = set()
    pending = [int(detail["index"]) for detail in runtime.get_output_details()]
    while pending:
        index = producer.get(pending.pop())
        if index is not None and index not in reached:
            reached.add(index)
            pending += [int(tensor) for tensor in nodes[index]["inputs"]]
    return [nodes[index]["op_name"] for index in sorted(reached)]


def _layout(file: LiteRtFile) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """How the axes of inputs and outputs were turned, from the metadata of lowbit's own files; empty for others."""
    text = file.text(LAYOUT_KEY)
    if text is None or len(text) > LONGEST_JSON:
        return {}
    try:
        entries = json.loads(text)
        return {
            side: {str(name): tuple(int(axis) for axis in order) for name, order in entries[side].items()}
            for side in ("inputs", "outputs")
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise EngineError(f"metadata {LAYOUT_KEY!r} is damaged: {error}.", where="litert") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The runtime announces its delegate on the terminal at each start; errors still come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

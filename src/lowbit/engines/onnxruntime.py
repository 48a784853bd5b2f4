"""ONNX Runtime: the engine that is always there."""

import ctypes
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnxruntime

from lowbit.engines.bounds import Bounds, bounded_loops, bounded_memory, bounds_of, is_repeated
from lowbit.engines.messages import cause
from lowbit.engines.session import Array, Session
from lowbit.errors import EngineError, LowbitError
from lowbit.graph.light_model import LightModel

# Warnings of the runtime (unused initializers, and the like) are of no use to someone who only runs a model; errors are
# raised as well, and written to standard error with the names that stand in the file.
FATAL_ONLY = 4
KERNEL = "_kernel_time"
# What the runtime calls the float types that inputs are converted to; numpy has no bfloat16 of its own.
BFLOAT16, BFLOAT16_NUMBER = "tensor(bfloat16)", 16
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxRuntimeSession:
    """A model in ONNX Runtime, on the CPU."""

    engine = "onnxruntime"

    def __init__(
        self, session: onnxruntime.InferenceSession, bounds: Bounds, weights: Sequence[onnxruntime.OrtValue] = ()
    ) -> None:
        self._session = session
        self._bounds = bounds
        self._weights = weights  # must live as long as the session, which reads them where they are
        self.input_names: tuple[str, ...] = tuple(value.name for value in session.get_inputs())
        self.output_names: tuple[str, ...] = tuple(value.name for value in session.get_outputs())
        self._types = {value.name: value.type for value in session.get_inputs()}
        self._bfloat16 = BFLOAT16 in (*self._types.values(), *(value.type for value in session.get_outputs()))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name; floats become those that the model takes, and bfloat16 outputs float32."""
        try:
            outputs = self._run(inputs, None) if is_repeated() else self._bounded(inputs)
        except LowbitError:
            raise
        except Exception as error:
            raise EngineError(f"the model does not run: {cause(error)}.", where=self.engine) from error
        return {name: np.asarray(output) for name, output in zip(self.output_names, outputs, strict=True)}

    def _bounded(self, inputs: Mapping[str, Array]) -> list[Array]:
        with bounded_memory(self._bounds.bytes(inputs), self.engine) as most:
            if not self._bounds.loops:
                return self._run(inputs, None)
            options = onnxruntime.RunOptions()
            options.log_severity_level = FATAL_ONLY
            seconds = self._bounds.seconds(inputs)
            with bounded_loops(seconds, most, lambda: setattr(options, "terminate", True), self.engine):
                return self._run(inputs, options)

    def _run(self, inputs: Mapping[str, Array], options: onnxruntime.RunOptions | None) -> list[Array]:
        if self._bfloat16:
            return self._run_bfloat16(inputs, options)
        return list(self._session.run(None, self._typed(inputs), options))

    def _typed(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        wanted = {
            name: FLOATS.get(self._types.get(name, "")) if x.dtype.kind == "f" else None for name, x in inputs.items()
        }
        return {name: x if (to := wanted[name]) is None else x.astype(to, copy=False) for name, x in inputs.items()}

    def _run_bfloat16(self, inputs: Mapping[str, Array], options: onnxruntime.RunOptions | None) -> list[Array]:
        """The runtime's Python interface passes bfloat16 as the bits of a value of its own only."""
        given = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                np.ascontiguousarray(x.astype(ml_dtypes.bfloat16)).view(np.uint16), BFLOAT16_NUMBER
            )
            if self._types.get(name) == BFLOAT16
            else onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x))
            for name, x in self._typed(inputs).items()
        }
        values = self._session.run_with_ort_values(list(self.output_names), given, options)
        return [_array(value) for value in values]


class ProfiledSession(OnnxRuntimeSession):
    """A session that writes down how long each of its kernels takes."""

    def kernels(self) -> dict[str, list[float]]:
        """By the name that the runtime gives a kernel, the microseconds of each time that it ran; ends the profile."""
        path = Path(self._session.end_profiling())
        times: dict[str, list[float]] = {}
        for event in json.loads(path.read_text(encoding="utf-8")):
            if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
                times.setdefault(event["name"].removesuffix(KERNEL), []).append(event["dur"])
        path.unlink()
        return times


def _array(value: onnxruntime.OrtValue) -> Array:
    if value.data_type() != BFLOAT16:
        return np.asarray(value.numpy())
    bits = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bits, ml_dtypes.bfloat16).astype(np.float32).reshape(value.shape())


def open_session(model: bytes | Path | str | LightModel, *, threads: int, optimized_to: Path | None) -> Session:
    """See `lowbit.engines.session.open_session`."""
    options = _options(threads)
    if optimized_to is not None:
        options.optimized_model_filepath = str(optimized_to)
    return OnnxRuntimeSession(*_opened(model, options))


def open_profiled(model: bytes | Path | str, *, threads: int, folder: Path) -> ProfiledSession:
    """A session whose kernels are timed; its profile lies in `folder` until it is read.

    Raises:
        EngineError: as `open_session`.
    """
    options = _options(threads)
    options.enable_profiling = True
    # The runtime adds the second to this name: sessions opened within one would write into one file.
    options.profile_file_prefix = str(Path(tempfile.mkdtemp(dir=folder)) / "profile")
    return ProfiledSession(*_opened(model, options))


def opened_filler(model: bytes) -> Callable[[Array, Array], None]:
    """What runs a model of one input and one output on two arrays, the second of which it fills.

    The runtime never gives back memory that it had for outputs of its own, as long as the session lives.
    """
    session, *_ = _opened(model, _options(threads=1))
    (source,), (target,) = session.get_inputs(), session.get_outputs()

    def fill(x: Array, y: Array) -> None:
        binding = session.io_binding()
        binding.bind_ortvalue_input(source.name, onnxruntime.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output(target.name, onnxruntime.OrtValue.ortvalue_from_numpy(y))
        session.run_with_iobinding(binding)

    return fill


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.inter_op_num_threads = 1
    if threads:
        options.intra_op_num_threads = threads
    # Threads that go on spinning after a run steal time from whatever runs next, another session's timing for one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _opened(
    model: bytes | Path | str | LightModel, options: onnxruntime.SessionOptions
) -> tuple[onnxruntime.InferenceSession, Bounds, list[onnxruntime.OrtValue]]:
    bounds = bounds_of(model)
    weights: list[onnxruntime.OrtValue] = []
    if isinstance(model, LightModel):
        # Pairs of QuantizeLinear and DequantizeLinear in it round activations, and nothing else: the runtime would take
        # a layer between two of them for one that computes in integers, and round its float weights as well.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        weights = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in model.weights.values()]
        if weights:
            options.add_external_initializers(list(model.weights), weights)
        model = model.content
    source = model if isinstance(model, bytes) else str(model)
    try:
        # Its Python side would print what is wrong, and try the same again.
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:
        where = "onnxruntime" if isinstance(model, bytes) else str(model)
        raise EngineError(f"ONNX Runtime refuses the model: {cause(error)}.", where=where) from error
    return session, bounds, weights


def version() -> str:
    """Version of ONNX Runtime."""
    return str(onnxruntime.__version__)

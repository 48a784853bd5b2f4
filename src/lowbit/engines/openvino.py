"""OpenVINO, an optional engine (extra `openvino`)."""

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import openvino

from lowbit.engines.messages import cause
from lowbit.engines.session import Array, Session
from lowbit.errors import EngineError


class OpenVinoSession:
    """A model compiled by OpenVINO for the CPU."""

    engine = "openvino"

    def __init__(self, read: openvino.Model, compiled: openvino.CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        # As they are read: compiled, they may also have the names of tensors that turned out to be the same.
        self.input_names = tuple(port.get_any_name() for port in read.inputs)
        self.output_names = tuple(port.get_any_name() for port in read.outputs)
        names = (*self.input_names, *self.output_names)
        ports = (*compiled.inputs, *compiled.outputs)
        self._bfloat16 = {name for name, port in zip(names, ports, strict=True) if _is_bfloat16(port)}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name; floats become those that the model takes, and bfloat16 outputs float32."""
        if self._bfloat16:
            inputs = {name: x.astype(ml_dtypes.bfloat16) if name in self._bfloat16 else x for name, x in inputs.items()}
        try:
            # Shared, not copied: the arrays live until the outputs are copied out below.
            results = self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        except Exception as error:
            raise EngineError(f"the model does not run: {cause(error)}.", where="openvino") from error
        return {name: self._output(name, results[place]) for place, name in enumerate(self.output_names)}

    def _output(self, name: str, array: Array) -> Array:
        # OpenVINO calls bfloat16 float16 in numpy: the bits are right.
        bits = array.view(ml_dtypes.bfloat16).astype(np.float32) if name in self._bfloat16 else array
        return np.array(bits)


def _is_bfloat16(port: openvino.ConstOutput) -> bool:
    return bool(port.get_element_type() == openvino.Type.bf16)


def open_session(model: bytes | Path | str, *, threads: int, optimized_to: Path | None) -> Session:
    """See `lowbit.engines.session.open_session`."""
    core = openvino.Core()
    # float32 arithmetic: bfloat16, OpenVINO's own default where the processor has it, would be a second quantization.
    # No thread is tied to a processor: tied to one that other programs use, it waits while another is free.
    properties: dict[str, str | int | bool] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    if threads:
        properties["INFERENCE_NUM_THREADS"] = threads
    try:
        read = core.read_model(model=model) if isinstance(model, bytes) else core.read_model(str(model))
        compiled = core.compile_model(read, "CPU", properties)
    except Exception as error:
        where = "openvino" if isinstance(model, bytes) else str(model)
        raise EngineError(f"OpenVINO refuses the model: {cause(error)}.", where=where) from error
    if optimized_to is not None:
        openvino.save_model(compiled.get_runtime_model(), str(optimized_to), compress_to_fp16=False)
    return OpenVinoSession(read, compiled)


def version() -> str:
    """Version of OpenVINO, without the number of its build."""
    return str(openvino.__version__).split("-", maxsplit=1)[0]

"""Loads one network into one runtime, in whatever environment this is run by, and runs it once whenever it is told to.

    runner.py RUNTIME FILE BATCH THREADS     then a line on standard input for each run

Runtimes: onnxruntime, openvino, openvino-default (its own choice of precision), litert, torch, torch-compile (the
network of `lowbit.training`, random weights; FILE is its number of classes). Inputs are random. Prints one JSON line
when it is ready and, for every line it reads, one with the nanoseconds of wall and processor time. It knows nothing of
the others: `benchmarks/latency.py` makes them take turns.
"""

import gc
import json
import sys
import time
from collections.abc import Callable

import numpy as np

WARMUP = 10


def onnxruntime_session(path: str, batch: int, threads: int) -> tuple[Callable[[], object], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # A thread that goes on spinning would take the processor from whoever has the next turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    feed = {value.name: random(value.shape, "uint8" if value.type == "tensor(uint8)" else "float32", batch)}
    return lambda: session.run(None, feed), onnxruntime.__version__


def openvino_session(path: str, batch: int, threads: int, **more: str | bool) -> tuple[Callable[[], object], str]:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False, **more}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request, port = compiled.create_infer_request(), compiled.inputs[0]
    shape = [dim.get_length() if dim.is_static else None for dim in port.partial_shape]
    x = random(shape, "uint8" if port.element_type == openvino.Type.u8 else "float32", batch)
    return lambda: request.infer([x], share_inputs=True, share_outputs=True), openvino.__version__


def litert_session(path: str, batch: int, threads: int) -> tuple[Callable[[], object], str]:
    from importlib import metadata

    from ai_edge_litert.interpreter import Interpreter

    runtime = Interpreter(model_path=path, num_threads=threads)
    detail = runtime.get_input_details()[0]
    runtime.resize_tensor_input(detail["index"], [batch, *detail["shape"][1:]])
    runtime.allocate_tensors()
    x = random([batch, *detail["shape"][1:].tolist()], np.dtype(detail["dtype"]).name, batch)

    def once() -> None:
        runtime.set_tensor(detail["index"], x)
        runtime.invoke()
        runtime.get_tensor(runtime.get_output_details()[0]["index"])

    return once, metadata.version("ai-edge-litert")


def torch_session(classes: str, batch: int, threads: int, *, compiled: bool) -> tuple[Callable[[], object], str]:
    import torch

    from lowbit.training.mobilenet import MobileNetV2

    torch.set_num_threads(threads)
    model: Callable[[torch.Tensor], torch.Tensor] = MobileNetV2(int(classes)).eval()
    x = torch.from_numpy(random([None, 3, 128, 128], "float32", batch))
    if compiled:
        model = torch.compile(model)

    def once() -> None:
        with torch.inference_mode():
            model(x)

    return once, torch.__version__


def random(shape: list[object], dtype: str, batch: int) -> np.ndarray:
    sizes = [size if isinstance(size, int) else batch for size in shape]
    sizes[0] = batch
    generator = np.random.default_rng(0)
    if dtype == "float32":
        return generator.normal(size=sizes).astype(np.float32)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max + 1, size=sizes, dtype=dtype)


RUNTIMES: dict[str, Callable[[str, int, int], tuple[Callable[[], object], str]]] = {
    "onnxruntime": onnxruntime_session,
    "openvino": lambda *given: openvino_session(*given, INFERENCE_PRECISION_HINT="f32"),
    "openvino-default": openvino_session,
    "litert": litert_session,
    "torch": lambda *given: torch_session(*given, compiled=False),
    "torch-compile": lambda *given: torch_session(*given, compiled=True),
}


def main(runtime: str, path: str, batch: str, threads: str) -> None:
    once, version = RUNTIMES[runtime](path, int(batch), int(threads))
    for _ in range(WARMUP):
        once()
    gc.disable()
    print(json.dumps({"version": version}), flush=True)
    for _ in sys.stdin:
        cpu, start = time.process_time_ns(), time.perf_counter_ns()
        once()
        print(json.dumps([time.perf_counter_ns() - start, time.process_time_ns() - cpu]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

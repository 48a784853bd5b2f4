"""Loads one network into one runtime, in whatever environment this is run by, and runs it whenever it is told to.

    runner.py RUNTIME FILE BATCH THREADS [FEEDS]     then on standard input, for each turn, how often to run

A runtime with `-normalized` behind its name takes image bytes, normalizes them in numpy and answers with classes; files
that take bytes themselves answer with classes too. Inputs are random, or by name in FEEDS (.npz), repeated to a batch;
ONNX Runtime and OpenVINO take these. Prints one JSON line when it is ready and, for
every turn, one with the nanoseconds that each run took and those of processor time for all of them. It knows nothing of
the others: `benchmarks/latency.py` makes them take turns.
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

WARMUP = 10
MEAN, STD = (np.array(values, np.float32) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
SCALE = np.float32(1 / 255)


@dataclass(frozen=True)
class Session:
    """A loaded network: what runs it on one batch, and what it takes."""

    run: Callable[[Any], Any]
    shape: tuple[int, ...]  # of its input, batch included
    dtype: str
    version: str


def onnxruntime_session(path: str, batch: int, threads: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # A thread that goes on spinning after its call would take the processor from whoever has the next turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    dtype = "uint8" if value.type == "tensor(uint8)" else "float32"
    return Session(
        lambda x: session.run(None, x if isinstance(x, dict) else {value.name: x})[0],
        (batch, *value.shape[1:]),
        dtype,
        onnxruntime.__version__,
    )


def openvino_session(path: str, batch: int, threads: int, **more: str | bool) -> Session:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False, **more}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request, port = compiled.create_infer_request(), compiled.inputs[0]
    shape = (batch, *(dim.get_length() if dim.is_static else 1 for dim in list(port.partial_shape)[1:]))
    dtype = "uint8" if port.element_type == openvino.Type.u8 else "float32"
    return Session(
        lambda x: request.infer(x if isinstance(x, dict) else [x], share_inputs=True, share_outputs=True)[0],
        shape,
        dtype,
        openvino.__version__.split("-")[0],
    )


def litert_session(path: str, batch: int, threads: int) -> Session:
    from ai_edge_litert.interpreter import Interpreter

    runtime = Interpreter(model_path=path, num_threads=threads)
    detail = runtime.get_input_details()[0]
    shape = (batch, *detail["shape"][1:].tolist())
    runtime.resize_tensor_input(detail["index"], shape)
    runtime.allocate_tensors()
    output = runtime.get_output_details()[0]["index"]

    def run(x: Any) -> Any:
        runtime.set_tensor(detail["index"], x)
        runtime.invoke()
        return runtime.get_tensor(output)

    return Session(run, shape, np.dtype(detail["dtype"]).name, metadata.version("ai-edge-litert"))


def torch_session(path: str, batch: int, threads: int, *, way: str) -> Session:
    import torch
    from from_onnx import Network

    torch.set_num_threads(threads)
    network = Network(path).eval()
    shape, version = (batch, *network.image), str(torch.__version__)
    model: Callable[[Any], Any] = network
    with torch.no_grad():
        if way == "torchao":
            model, version = torchao_int8(network, torch.from_numpy(random(shape, "float32")))
        if way != "eager":
            torch._inductor.config.freezing = True
            model = torch.compile(model)

    def run(x: Any) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()

    return Session(run, shape, "float32", version)


def torchao_int8(network: Any, x: Any) -> tuple[Callable[[Any], Any], str]:
    """Static int8 by torchao's quantizer for x86, as its guide does it."""
    import torch
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    exported = torch.export.export(network, (x,)).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantizer)
    prepared(x)
    converted = convert_pt2e(prepared)
    move_exported_model_to_eval(converted)
    return converted, f"{torch.__version__}, torchao {metadata.version('torchao')}"


def random(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    generator = np.random.default_rng(0)
    if dtype == "float32":
        return generator.normal(size=shape).astype(np.float32)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max + 1, size=shape, dtype=dtype)


def normalized(pixels: np.ndarray, *, channels_last: bool) -> np.ndarray:
    """Images [N, H, W, 3] as the network's input, by the arithmetic of `lowbit.graph.preprocessing`."""
    x = pixels.astype(np.float32) * SCALE
    x -= MEAN
    x /= STD
    return x if channels_last else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


RUNTIMES: dict[str, Callable[[str, int, int], Session]] = {
    "onnxruntime": onnxruntime_session,
    "openvino": lambda *given: openvino_session(*given, INFERENCE_PRECISION_HINT="f32"),
    "openvino-default": openvino_session,
    "litert": litert_session,
    "torch": lambda *given: torch_session(*given, way="eager"),
    "torch-compile": lambda *given: torch_session(*given, way="compile"),
    "torchao": lambda *given: torch_session(*given, way="torchao"),
}


def repeated(feeds: str, batch: int) -> dict[str, np.ndarray]:
    """A batch of samples, from the first ones of a file on."""
    return {name: x[np.arange(batch) % len(x)] for name, x in np.load(feeds).items()}


def main(runtime: str, path: str, batch: str, threads: str, feeds: str = "") -> None:
    session = RUNTIMES[runtime.removesuffix("-normalized")](path, int(batch), int(threads))
    takes_bytes = session.dtype == "uint8" or runtime.endswith("-normalized")
    once: Callable[[Any], Any] = session.run
    if runtime.endswith("-normalized"):
        count, *sizes = session.shape
        channels_last = sizes[-1] == len(MEAN)
        x = random((count, *(sizes if channels_last else [*sizes[1:], sizes[0]])), "uint8")

        def once(pixels: Any) -> Any:
            return session.run(normalized(pixels, channels_last=channels_last))
    elif feeds:
        x, takes_bytes = repeated(feeds, int(batch)), False
    else:
        x = random(session.shape, session.dtype)

    for _ in range(WARMUP):
        once(x)
    gc.disable()
    print(json.dumps({"version": session.version}), flush=True)
    for line in sys.stdin:
        cpu, times = time.process_time_ns(), []
        for _ in range(int(line)):
            start = time.perf_counter_ns()
            logits = once(x)
            if takes_bytes:
                logits.argmax(axis=-1)
            times.append(time.perf_counter_ns() - start)
        print(json.dumps([times, time.process_time_ns() - cpu]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

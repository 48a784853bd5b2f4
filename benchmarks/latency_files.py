"""The files that `latency.py` times: one function a tool, all from the same float network and images.

Files of peers are made once and kept in build/latency; lowbit's are made every time. lowbit quantizes at effort fast
here: ranges and rounding change values but not the graph, so latency does not depend on them.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peer_tools import peer, quantize_static, run, why
from rows import HERE
from subjects import Subject

import lowbit
from lowbit import FileForm

FLOAT = "float"

# What quantize_static is asked for: name -> (format, activations, per channel)
STATIC = {
    "quantize_static U8S8 QDQ": ("QDQ", "QUInt8", True),
    "quantize_static U8S8 QDQ, per tensor": ("QDQ", "QUInt8", False),
    "quantize_static U8S8 QOperator": ("QOperator", "QUInt8", True),
    "quantize_static S8S8 QDQ": ("QDQ", "QInt8", True),
    "quantize_static S8S8 QOperator": ("QOperator", "QInt8", True),
}


@dataclass(frozen=True)
class Candidate:
    """A file in a runtime (of `peers/runner.py`) and the Python that runs it; `note` says why there is none.

    `feeds` are inputs by name (.npz); without them the only input is random.
    """

    engine: str
    tool: str
    runtime: str = ""
    path: Path | str = ""
    python: Path = Path(sys.executable)
    note: str = ""
    feeds: Path | str = ""


def make_files(subject: Subject, folder: Path, *, tools: Sequence[str]) -> Iterator[Candidate]:
    """Everything that can be made here; the rest says why not."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "x.npy").exists():
        np.save(folder / "x.npy", np.concatenate([batch.x for batch in subject.calibration.batches(32)]))
    for tool in tools:
        engine, make = TOOLS[tool]
        try:
            yield from make(subject, folder)
        # Whatever a peer raises belongs in its row: the others still have to be measured.
        except Exception as error:
            yield Candidate(engine, tool, note=f"not made: {why(error)}")


def as_it_is(subject: Subject, folder: Path) -> Iterator[Candidate]:
    yield Candidate("onnxruntime", FLOAT, "onnxruntime", subject.path)
    yield Candidate("openvino", FLOAT, "openvino", subject.path)
    yield Candidate("openvino", f"{FLOAT}, OpenVINO's own precision", "openvino-default", subject.path)
    file = lowbit.quantize(subject.model, "float").save(folder / "float.tflite")
    yield Candidate("litert", FLOAT, "litert", file)


def by_lowbit(subject: Subject, folder: Path) -> Iterator[Candidate]:
    quantized = lowbit.quantize(subject.model, "int8", calibration=subject.calibration, effort="fast")
    for engine, to in (("onnxruntime", "onnx"), ("openvino", "openvino")):
        file = quantized.save(folder / f"lowbit-{engine}.onnx", FileForm(to))
        given = quantized.save(folder / f"lowbit-{engine}-bytes.onnx", FileForm(to, input="uint8"))
        yield Candidate(engine, "lowbit int8", engine, file)
        yield Candidate(engine, "lowbit int8, normalized in numpy", f"{engine}-normalized", file)
        yield Candidate(engine, "lowbit int8, bytes in", engine, given)
    other = folder / "lowbit-onnxruntime.onnx"
    yield Candidate("openvino", "lowbit int8, as made for ONNX Runtime", "openvino", other)
    file = quantized.save(folder / "lowbit.tflite")
    yield Candidate("litert", "lowbit int8", "litert", file)
    yield Candidate("litert", "lowbit int8, normalized in numpy", "litert-normalized", file)
    given = quantized.save(folder / "lowbit-bytes.tflite", FileForm(input="uint8"))
    yield Candidate("litert", "lowbit int8, bytes in", "litert", given)
    codes = quantized.save(folder / "lowbit-int8.tflite", FileForm(input="int8", output_type="int8"))
    yield Candidate("litert", "lowbit int8, int8 in and out", "litert", codes)


def by_onnxruntime(subject: Subject, folder: Path) -> Iterator[Candidate]:
    for name, (form, activations, per_channel) in STATIC.items():
        file = folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"
        if not file.exists():
            quantize_static(
                subject.model, subject.calibration, subject.path, file,
                quant_format=form, activation_type=activations, weight_type="QInt8", per_channel=per_channel,
            )  # fmt: skip
        yield Candidate("onnxruntime", name, "onnxruntime", file)
        if name == next(iter(STATIC)):
            yield Candidate("openvino", name, "openvino", file)


def by_nncf(subject: Subject, folder: Path) -> Iterator[Candidate]:
    python = peer("nncf")
    x = folder / "x.npy"
    for backend, preset, name, file in (
        ("openvino", (), "NNCF", "model.xml"),
        ("openvino", ("--mixed",), "NNCF, mixed preset", "model.xml"),
        ("onnx", (), "NNCF's ONNX", "model.onnx"),
    ):
        out = folder / f"nncf-{backend}{''.join(preset)}"
        if not (out / file).exists():
            out.mkdir(exist_ok=True)
            command = [python, HERE / "peers" / "nncf_int8.py", subject.path, x, x, out, "--backend", backend, *preset]
            run([*command, "--images", str(len(np.load(x, mmap_mode="r")))])
        yield Candidate("openvino", name, "openvino", out / file)
        if backend == "onnx":
            yield Candidate("onnxruntime", name, "onnxruntime", out / file)


def by_litert(subject: Subject, folder: Path) -> Iterator[Candidate]:
    out = folder / "ai-edge"
    if not (out / "int8.tflite").exists():
        out.mkdir(exist_ok=True)
        run([peer("torch"), HERE / "peers" / "litert_int8.py", subject.path, folder / "x.npy", out])
    yield Candidate("litert", f"{FLOAT}, litert-torch", "litert", out / "float.tflite")
    yield Candidate("litert", "litert-torch + ai-edge-quantizer", "litert", out / "int8.tflite")


def by_torch(subject: Subject, folder: Path) -> Iterator[Candidate]:
    python = peer("torch")
    yield Candidate("torch", f"{FLOAT}, eager", "torch", subject.path, python)
    yield Candidate("torch", f"{FLOAT}, compiled", "torch-compile", subject.path, python)
    yield Candidate("torch", "torchao int8, compiled", "torchao", subject.path, python)


# name -> (engine of the row if nothing can be made, what makes the files)
TOOLS = {
    FLOAT: ("onnxruntime", as_it_is),
    "lowbit": ("onnxruntime", by_lowbit),
    "onnxruntime": ("onnxruntime", by_onnxruntime),
    "nncf": ("openvino", by_nncf),
    "litert": ("litert", by_litert),
    "torch": ("torch", by_torch),
}

"""The files that `latency.py` times: one function a tool, all from the same float network and images.

Files of peers are made once and kept in build/latency; lowbit's are made anew each time. Ranges and roundings move
values, not the graph, so lowbit quantizes at effort fast here: time does not depend on it.
"""

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy import peer, run
from rows import ROOT

import lowbit
from lowbit import FileForm
from lowbit.data.images import Images
from lowbit.data.options import with_preprocessing
from lowbit.graph.model import Model

HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "latency"
CALIBRATION = 128
FLOAT = "float"

# name -> (float file, calibration images), below --data
MODELS = {
    "rps128": ("rps128/mobilenet_v2.onnx", "rps128/train"),
    "resnet20": ("cifar10/resnet20.onnx", "cifar10/calibration"),
}
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
    """A file in a runtime (of `peers/runner.py`), run by the Python of some environment; `note` says why it is none."""

    engine: str
    tool: str
    runtime: str = ""
    path: Path | str = ""
    python: Path = Path(sys.executable)
    note: str = ""


def subject(data: Path, name: str) -> tuple[Model, Images, Path]:
    """A float model, its calibration images and its file."""
    file, images = MODELS[name]
    loaded = lowbit.load(data / file)
    model = with_preprocessing(loaded, size=str(loaded.input.shape[2]), mean="imagenet", std="imagenet")
    return model, lowbit.open_images(data / images, model.preprocessing, limit=CALIBRATION), data / file


def make_files(model: Model, images: Images, path: Path, folder: Path, *, tools: Sequence[str]) -> Iterator[Candidate]:
    """Everything that can be made here; what cannot says why."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "x.npy").exists():
        np.save(folder / "x.npy", np.concatenate([batch.x for batch in images.batches(32)]))
    for tool in tools:
        engine, make = TOOLS[tool]
        try:
            yield from make(model, images, path, folder)
        # Whatever a peer raises belongs in its row: the others still have to be measured.
        except Exception as error:
            reason = str(error).strip() or type(error).__name__
            yield Candidate(engine, tool, note=f"not made: {reason.splitlines()[0][:200]}".replace(str(ROOT), "."))


def as_it_is(model: Model, images: Images, path: Path, folder: Path) -> Iterator[Candidate]:
    yield Candidate("onnxruntime", FLOAT, "onnxruntime", path)
    yield Candidate("openvino", FLOAT, "openvino", path)
    yield Candidate("openvino", f"{FLOAT}, OpenVINO's own precision", "openvino-default", path)
    file = lowbit.quantize(model, "float").save(folder / "float.tflite")
    yield Candidate("litert", FLOAT, "litert", file)


def by_lowbit(model: Model, images: Images, path: Path, folder: Path) -> Iterator[Candidate]:
    quantized = lowbit.quantize(model, "int8", calibration=images, effort="fast")
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


def by_onnxruntime(model: Model, images: Images, path: Path, folder: Path) -> Iterator[Candidate]:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = ({model.input.name: batch.x} for batch in images.batches(1))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.images, None)

    quant_pre_process(str(path), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
    for name, (form, activations, per_channel) in STATIC.items():
        file = folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"
        if not file.exists():
            with contextlib.redirect_stdout(io.StringIO()):
                quantization.quantize_static(
                    str(folder / "prepared.onnx"), str(file), Reader(), quant_format=quantization.QuantFormat[form],
                    activation_type=quantization.QuantType[activations], weight_type=quantization.QuantType.QInt8,
                    per_channel=per_channel,
                )  # fmt: skip
        yield Candidate("onnxruntime", name, "onnxruntime", file)
        if name == next(iter(STATIC)):
            yield Candidate("openvino", name, "openvino", file)


def by_nncf(model: Model, images: Images, path: Path, folder: Path) -> Iterator[Candidate]:
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
            command = [python, HERE / "peers" / "nncf_int8.py", path, x, x, out, "--backend", backend, *preset]
            run([*command, "--images", str(len(np.load(x, mmap_mode="r")))])
        yield Candidate("openvino", name, "openvino", out / file)
        if backend == "onnx":
            yield Candidate("onnxruntime", name, "onnxruntime", out / file)


def by_litert(model: Model, images: Images, path: Path, folder: Path) -> Iterator[Candidate]:
    out = folder / "ai-edge"
    if not (out / "int8.tflite").exists():
        out.mkdir(exist_ok=True)
        run([peer("torch"), HERE / "peers" / "litert_int8.py", path, folder / "x.npy", out])
    yield Candidate("litert", f"{FLOAT}, litert-torch", "litert", out / "float.tflite")
    yield Candidate("litert", "litert-torch + ai-edge-quantizer", "litert", out / "int8.tflite")


def by_torch(model: Model, images: Images, path: Path, folder: Path) -> Iterator[Candidate]:
    python = peer("torch")
    yield Candidate("torch", f"{FLOAT}, eager", "torch", path, python)
    yield Candidate("torch", f"{FLOAT}, compiled", "torch-compile", path, python)
    yield Candidate("torch", "torchao int8, compiled", "torchao", path, python)


# name -> (engine of the row if nothing can be made, what makes the files)
TOOLS = {
    FLOAT: ("onnxruntime", as_it_is),
    "lowbit": ("onnxruntime", by_lowbit),
    "onnxruntime": ("onnxruntime", by_onnxruntime),
    "nncf": ("openvino", by_nncf),
    "litert": ("litert", by_litert),
    "torch": ("torch", by_torch),
}

"""What `accuracy.py` compares: lowbit's recipes, plain rounding and the peers, each as a function that makes a file."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peer_tools import peer, quantize_static, run
from rows import HERE
from subjects import Subject

import lowbit
from lowbit.calibration.batches import samples_per_run
from lowbit.files import write_atomically
from lowbit.formats.onnx.write import to_onnx
from lowbit.measurement.prediction import Runs, predict
from lowbit.progress import SILENT
from lowbit.quantization.passes.candidate import plain_candidate

BATCH = 64

HALVES = ("float16", "float16w", "bfloat16w")  # rounded to nearest whatever the effort, so plain rounding is the same
# (name, recipe, options); the order is that of the table
RECIPES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("int8", "int8", {}),
    ("int8 per tensor", "int8", {"per": "tensor"}),
    ("int8, powers of two", "int8", {"scales": "pow2"}),
    ("int4 (W4A8)", "int4", {}),
    ("a16w8", "a16w8", {}),
    ("a16w4", "a16w4", {}),
    ("dynamic8", "dynamic8", {}),
    ("block4", "block4", {}),
    *((f"linear{bits}", f"linear{bits}", {}) for bits in (8, 4, 3, 2)),
    *((f"cluster{bits}", f"cluster{bits}", {}) for bits in (8, 4, 3, 2)),
    *((f"{name} per channel", name, {"per": "channel"}) for name in ("cluster4", "cluster3", "cluster2")),
    *((name, name, {}) for name in HALVES),
)
SAME_BITS = tuple(
    (f"{name}, same bits in all layers", recipe, {"extra_bits": 0.0})
    for name, recipe in (("int4 (W4A8)", "int4"), *((f"linear{bits}", f"linear{bits}") for bits in (4, 3, 2)))
)
WIDE = {"QUInt8": "", "QUInt16": ", 16-bit activations"}
ONNXRUNTIME = tuple(
    (
        f"{method.lower()}, per {per}{', int4 weights' if narrow else ''}{WIDE[activations]}",
        method, per == "channel", narrow, activations,
    )
    for method, per, narrow, activations in (
        ("MinMax", "channel", False, "QUInt8"),
        ("Percentile", "channel", False, "QUInt8"),
        ("Entropy", "channel", False, "QUInt8"),
        ("MinMax", "tensor", False, "QUInt8"),
        ("Percentile", "tensor", False, "QUInt8"),
        ("Entropy", "tensor", False, "QUInt8"),
        ("MinMax", "channel", True, "QUInt8"),
        ("MinMax", "channel", False, "QUInt16"),
    )
)  # fmt: skip
NNCF = tuple(
    (f"int8 {name}, {engine}", ("--backend", backend, *options))
    for backend, engine in (("openvino", "OpenVINO"), ("onnx", "ONNX"))
    for name, options in (
        ("default", ()),
        ("mixed preset", ("--mixed",)),
        ("accurate bias correction", ("--accurate",)),
        ("mixed, accurate bias correction", ("--mixed", "--accurate")),
    )
)
# lowbit's recipe and ai-edge-quantizer's, each as .tflite; the answers are LiteRT's
LITERT = {
    "int8": "int8",
    "a16w8": "int16x8",
    "dynamic8": "dynamic",
    "linear8": "weights",
    "float16w": "float16",
}
AIMET = (
    "not run: pip install --dry-run aimet-onnx (2.42.0) brings torch 2.15.0 with CUDA packages (14 nvidia-*, triton); "
    "not tried with a torch for CPUs"
)
QUICK = ("int8", "linear4", "cluster4", "minmax, per channel", "int8 default, OpenVINO")
TOOLS = ("float", "lowbit", "plain", "onnxruntime", "onnxconverter", "nncf", "litert", "aimet")


@dataclass(frozen=True)
class Made:
    """What a tool made of a model: a file, or its logits where they come from another engine."""

    seconds: float
    path: Path | None = None
    logits: np.ndarray | None = None
    calibration_logits: np.ndarray | None = None
    bits_per_weight: float | None = None
    file_bytes: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Candidate:
    """What is compared: a recipe of a tool, lowbit's at some effort, and the function that makes its file."""

    tool: str
    recipe: str
    effort: str
    make: Callable[[Subject, Path], Made]


def arrays(subject: Subject, folder: Path) -> tuple[Path, Path]:
    """The images as files of model inputs, for peers in environments of their own."""
    paths = []
    for name, images in (("calibration", subject.calibration), ("test", subject.test)):
        path = folder / f"{name}.npy"
        np.save(path, np.concatenate([batch.x for batch in images.batches(BATCH)]))
        paths.append(path)
    return paths[0], paths[1]


def candidates(tools: Sequence[str] = TOOLS, efforts: Iterable[str] = ("balanced",)) -> Iterator[Candidate]:
    """Everything that can be compared, in the order of the table."""
    if "lowbit" in tools:
        for name, recipe, options in (*RECIPES, *SAME_BITS):
            asked = lowbit.parse_recipe(recipe, **options)
            for effort in efforts:
                yield Candidate("lowbit", name, effort, partial(by_lowbit, recipe=asked, effort=effort))
    if "plain" in tools:
        for name, recipe, options in RECIPES:
            if name in HALVES:
                continue
            tool = "plain k-means" if recipe.startswith("cluster") else "plain rounding"
            asked = dataclasses.replace(lowbit.parse_recipe(recipe, **options), extra_bits=0.0)
            yield Candidate(tool, name, "", partial(plainly, recipe=asked))
    if "onnxruntime" in tools:
        for name, method, channel, narrow, activations in ONNXRUNTIME:
            make = partial(by_onnxruntime, method=method, per_channel=channel, narrow=narrow, activations=activations)
            yield Candidate("ONNX Runtime", name, "", make)
        yield Candidate("ONNX Runtime", "dynamic", "", dynamically)
    if "onnxconverter" in tools:
        yield Candidate("onnxconverter-common", "float16", "", by_onnxconverter)
    if "nncf" in tools:
        for name, options in NNCF:
            yield Candidate("NNCF", name, "", partial(by_nncf, options=options))
    if "litert" in tools:
        for recipe, kind in LITERT.items():
            yield Candidate("lowbit", f"{recipe}, .tflite", "", partial(by_lowbit_for_litert, recipe=recipe))
            yield Candidate("ai-edge-quantizer", kind, "", partial(by_ai_edge, kind=kind))
    if "aimet" in tools:
        yield Candidate("AIMET", "AdaRound", "", lambda subject, folder: Made(0.0, note=AIMET))


def by_lowbit(subject: Subject, folder: Path, recipe: lowbit.Recipe, effort: str) -> Made:
    """lowbit as a user calls it."""
    started = time.perf_counter()
    quantized = lowbit.quantize(subject.model, recipe, calibration=subject.calibration, effort=effort)
    path = quantized.save(folder / "model.onnx")
    seconds = time.perf_counter() - started
    steps = ", ".join(f"{step.name} {'kept' if step.kept else 'dropped'}" for step in quantized.steps)
    return Made(seconds, path, note=steps)


def plainly(subject: Subject, folder: Path, recipe: lowbit.Recipe) -> Made:
    """The same recipe by its weights alone, or k-means without any more; ranges of activations are their extremes."""
    started = time.perf_counter()
    if not recipe.integer:
        path = lowbit.quantize(subject.model, recipe).save(folder / "model.onnx")
        return Made(time.perf_counter() - started, path)
    recipe = lowbit.parse_recipe(recipe, ranges="minmax")
    decided = dataclasses.replace(lowbit.plan(subject.model, recipe), steps=())
    candidate = plain_candidate(subject.model, decided, subject.calibration, 0, SILENT)
    path = write_atomically(folder / "model.onnx", to_onnx(candidate.graph))
    return Made(time.perf_counter() - started, path, note="min-max ranges")


def dynamically(subject: Subject, folder: Path) -> Made:
    """ONNX Runtime's dynamic quantization, as it is by default: convolutions too."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    started = time.perf_counter()
    quantize_dynamic(str(subject.path), str(folder / "model.onnx"), per_channel=True, weight_type=QuantType.QInt8)
    return Made(time.perf_counter() - started, folder / "model.onnx")


def by_onnxruntime(
    subject: Subject, folder: Path, method: str, per_channel: bool, narrow: bool, activations: str
) -> Made:
    """ONNX Runtime's static quantization: QDQ, int8 weights."""
    started = time.perf_counter()
    quantize_static(
        subject.model, subject.calibration, subject.path, folder / "model.onnx",
        quant_format="QDQ", activation_type=activations, weight_type="QInt4" if narrow else "QInt8",
        per_channel=per_channel, calibrate_method=method,
    )  # fmt: skip
    return Made(time.perf_counter() - started, folder / "model.onnx")


def by_onnxconverter(subject: Subject, folder: Path) -> Made:
    """onnxconverter-common's `convert_float_to_float16`; inputs and outputs stay float32."""
    line = run([peer("onnxconverter"), HERE / "peers" / "onnxconverter_float16.py", subject.path, folder])
    return Made(json.loads(line)["seconds"], folder / "model.onnx")


def by_lowbit_for_litert(subject: Subject, folder: Path, recipe: str) -> Made:
    """lowbit's .tflite file of a recipe."""
    started = time.perf_counter()
    quantized = lowbit.quantize(subject.model, recipe, calibration=subject.calibration)
    path = quantized.save(folder / "model.tflite")
    return answered_by_litert(path, subject, time.perf_counter() - started)


def by_ai_edge(subject: Subject, folder: Path, kind: str) -> Made:
    """ai-edge-quantizer on the float .tflite file that lowbit writes: without torch it has no other way from ONNX."""
    start = lowbit.quantize(subject.model, "float").save(folder / "float.tflite")
    images = arrays(subject, folder)
    line = run([peer("litert"), HERE / "peers" / "litert_quantizer.py", start, images[0], folder, kind])
    for path in images:
        path.unlink()
    return answered_by_litert(folder / "model.tflite", subject, json.loads(line)["seconds"])


def answered_by_litert(path: Path, subject: Subject, seconds: float) -> Made:
    logits = predict(path, subject.test, engine="litert", runs=Runs(BATCH)).class_scores().logits
    return Made(seconds, logits=logits, file_bytes=path.stat().st_size, note="measured in LiteRT")


def by_nncf(subject: Subject, folder: Path, options: Sequence[str]) -> Made:
    """NNCF in its own environment; files of its OpenVINO backend answer there."""
    python = peer("nncf")
    images = arrays(subject, folder)
    batch = samples_per_run(subject.model, subject.calibration) or BATCH
    command = [python, HERE / "peers" / "nncf_int8.py", subject.path, *images, folder, *options]
    run([*command, "--images", subject.calibration.count, "--batch", batch])
    for path in images:
        path.unlink()
    result = json.loads((folder / "result.json").read_text())
    if (folder / "logits.npy").exists():
        return Made(
            result["seconds"],
            logits=np.load(folder / "logits.npy"),
            calibration_logits=np.load(folder / "calibration_logits.npy"),
            bits_per_weight=result["bits_per_weight"],
            file_bytes=result["file_bytes"],
            note="measured in OpenVINO",
        )
    return Made(result["seconds"], folder / "model.onnx")

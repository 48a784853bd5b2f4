"""NNCF's int8 of one ONNX file, run inside NNCF's own environment by `benchmarks/accuracy.py`.

Writes the quantized model (and, for the OpenVINO backend, what it answers on test and calibration images) and one JSON
object. It knows nothing of lowbit: what comes in are arrays that are already the model's input.
"""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nncf
import numpy as np

LAYERS = ("Convolution", "GroupConvolution", "MatMul")


def calibration(path: Path, input_name: str | None) -> nncf.Dataset:
    """One image at a time: a plain array for OpenVINO, a dictionary for ONNX."""
    images = np.load(path)
    return nncf.Dataset([x[None] if input_name is None else {input_name: x[None]} for x in images])


def settings(arguments: argparse.Namespace) -> dict[str, object]:
    """What the row asks for; everything else is NNCF's default."""
    chosen: dict[str, object] = {"fast_bias_correction": not arguments.accurate, "subset_size": arguments.images}
    if arguments.mixed:
        chosen["preset"] = nncf.QuantizationPreset.MIXED
    return chosen


def bits_per_weight(model: object) -> float:
    """Bytes of all constants that a layer's weight is computed from (codes, scales, zero points), for each weight."""
    spent = weights = 0
    for layer in model.get_ops():
        if layer.get_type_name() not in LAYERS:
            continue
        pending, constants = [layer.input_value(1).get_node()], []
        while pending:
            node = pending.pop()
            if node.get_type_name() == "Constant":
                if node.get_element_type().is_real() or node.get_element_type().bitwidth <= 8:
                    constants.append(node)
            else:
                pending += [value.get_node() for value in node.input_values()]
        if constants:
            spent += sum(node.get_byte_size() for node in constants)
            weights += max(int(np.prod(node.get_output_shape(0))) for node in constants)
    return 8 * spent / max(1, weights)


def answers(compiled: Callable[[np.ndarray], Any], images: Path, batch: int) -> np.ndarray:
    """The first output for every image of a file, `batch` at a time."""
    inputs = np.load(images, mmap_mode="r")
    parts = [compiled(np.ascontiguousarray(inputs[i : i + batch]))[0] for i in range(0, len(inputs), batch)]
    return np.concatenate(parts)


def with_openvino(arguments: argparse.Namespace) -> dict[str, object]:
    import openvino

    # Not Core.read_model: it leaves each ONNX bias behind a Reshape that is not folded, where NNCF sees no bias at all
    # and skips every correction of it without a word.
    model = openvino.convert_model(arguments.model)
    started = time.perf_counter()
    quantized = nncf.quantize(model, calibration(arguments.calibration, None), **settings(arguments))
    seconds = time.perf_counter() - started
    path = arguments.out / "model.xml"
    openvino.save_model(quantized, path, compress_to_fp16=False)
    written = openvino.Core().read_model(path)
    compiled = openvino.Core().compile_model(written, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for images, name in ((arguments.test, "logits"), (arguments.calibration, "calibration_logits")):
        np.save(arguments.out / f"{name}.npy", answers(compiled, images, arguments.batch))
    return {
        "seconds": seconds,
        "file_bytes": path.stat().st_size + path.with_suffix(".bin").stat().st_size,
        "bits_per_weight": bits_per_weight(written),
    }


def with_onnx(arguments: argparse.Namespace) -> dict[str, object]:
    import onnx

    model = onnx.load(arguments.model)
    started = time.perf_counter()
    quantized = nncf.quantize(
        model, calibration(arguments.calibration, model.graph.input[0].name), **settings(arguments)
    )
    seconds = time.perf_counter() - started
    onnx.save(quantized, arguments.out / "model.onnx")
    return {"seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--backend", choices=("openvino", "onnx"), required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--batch", type=int, default=64, help="images per run, where the files answer in OpenVINO")
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--accurate", action="store_true")
    arguments = parser.parse_args()
    result = with_openvino(arguments) if arguments.backend == "openvino" else with_onnx(arguments)
    result["versions"] = {name: importlib.metadata.version(name) for name in ("nncf", "openvino", "onnxruntime")}
    (arguments.out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

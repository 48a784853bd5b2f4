"""NNCF's quantization with accuracy control, run inside NNCF's own environment by `benchmarks/search.py`.

Writes the model that NNCF chose, what it answers on images that nothing was chosen on, and one JSON object. It knows
nothing of lowbit: what comes in are arrays that are already the model's input.
"""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
from nncf_int8 import answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("arrays", type=Path, help="a folder of calibration.npy, seen.npy, labels.npy and unseen.npy")
    parser.add_argument("out", type=Path)
    parser.add_argument("--max-drop", type=float, required=True, help="share of right answers that may be lost")
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    images, seen, labels = (np.load(arguments.arrays / f"{name}.npy") for name in ("calibration", "seen", "labels"))
    measured = 0

    def accuracy(compiled: Any, items: Iterable[tuple[np.ndarray, int]]) -> tuple[float, list[float]]:
        """Share of right answers, and each of them: NNCF ranks layers by these."""
        nonlocal measured
        measured += 1
        right = [float(compiled(x)[0].argmax() == label) for x, label in items]
        return float(np.mean(right)), right

    model = openvino.convert_model(arguments.model)
    started, processor_started = time.perf_counter(), time.process_time()
    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset([x[None] for x in images]),
        validation_dataset=nncf.Dataset([(x[None], label) for x, label in zip(seen, labels, strict=True)]),
        validation_fn=accuracy,
        max_drop=arguments.max_drop,
        subset_size=len(images),
    )
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - processor_started
    path = arguments.out / "model.xml"
    openvino.save_model(quantized, path, compress_to_fp16=False)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.save(arguments.out / "logits.npy", answers(compiled, arguments.arrays / "unseen.npy", arguments.batch))
    result = {
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "measured": measured,
        "file_bytes": path.stat().st_size + path.with_suffix(".bin").stat().st_size,
        "versions": {name: importlib.metadata.version(name) for name in ("nncf", "openvino")},
    }
    (arguments.out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

"""onnxconverter-common's float16 of one ONNX file, run inside its own environment by `benchmarks/accuracy.py`.

    onnxconverter_float16.py FLOAT_FILE FOLDER

Writes FOLDER/model.onnx, whose inputs and outputs stay float32, and prints one JSON object.
"""

import json
import sys
import time
from importlib import metadata
from pathlib import Path

import onnx
from onnxconverter_common import float16


def main(source: str, folder: str) -> None:
    started = time.perf_counter()
    # Its own shape inference cannot do without shapes of all tensors; onnx's gives them beforehand.
    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    converted = float16.convert_float_to_float16(model, keep_io_types=True)
    onnx.save(converted, Path(folder) / "model.onnx")
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "version": metadata.version("onnxconverter-common")}))


if __name__ == "__main__":
    main(*sys.argv[1:])

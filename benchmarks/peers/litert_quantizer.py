"""ai-edge-quantizer's files of one float .tflite, run inside its own environment (no TensorFlow, no torch).

    litert_quantizer.py MODEL CALIBRATION OUT KIND     CALIBRATION: model inputs as .npy; writes OUT/model.tflite

KIND: int8 and int16x8 (activations in 8 or 16 bits), dynamic (int8 weights, activations as it runs), weights (int8
weights, float arithmetic), float16. Prints the seconds of quantizing as JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import Quantizer, qtyping, recipe
from ai_edge_quantizer.recipe import AlgorithmName, TFLOperationName
from ai_edge_quantizer.utils.tfl_flatbuffer_utils import read_model, write_model

RECIPES = {
    "int8": recipe.static_wi8_ai8,
    "int16x8": recipe.static_wi8_ai16,
    "dynamic": recipe.dynamic_wi8_afp32,
    "weights": recipe.weight_only_wi8_afp32,
}


def named(model: str, out: Path) -> str:
    """The same file with a name for every tensor, without which ai-edge-quantizer reads none."""
    content = read_model(model)
    for index, tensor in enumerate(content.subgraphs[0].tensors):
        tensor.name = tensor.name or f"tensor_{index}".encode()
    path = out / "named.tflite"
    write_model(content, str(path))
    return str(path)


def halves(quantizer: Quantizer) -> None:
    """Weights in float16, which its recipes have no name for."""
    config = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    quantizer.update_quantization_recipe(
        regex=".*",
        operation_name=TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=config, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
        ),
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )


def main(model: str, calibration: str, out: str, kind: str) -> None:
    images = np.load(calibration)
    model = named(model, Path(out))
    runtime = Interpreter(model_path=model)
    (name,) = runtime.get_signature_list()["serving_default"]["inputs"]
    if runtime.get_input_details()[0]["shape"][-1] == images.shape[1]:
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    started = time.perf_counter()
    if kind == "float16":
        quantizer = Quantizer(model)
        halves(quantizer)
    else:
        quantizer = Quantizer(model, RECIPES[kind]())
    found = (
        quantizer.calibrate({"serving_default": [{name: image[None]} for image in images]}) if "int" in kind else None
    )
    result = quantizer.quantize(found)
    seconds = time.perf_counter() - started
    result.export_model(str(Path(out) / "model.tflite"), overwrite=True)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""litert-torch and ai-edge-quantizer's int8 of one ONNX file, run inside their own environment.

    litert_int8.py MODEL CALIBRATION OUT     CALIBRATION: model inputs as .npy

The network goes to torch by `from_onnx`, to a float .tflite by litert-torch (with channels-last input, as its own guide
for images recommends), and to full-integer int8 (int8 activations, int8 weights per channel) by ai-edge-quantizer.
"""

import sys
from pathlib import Path

import ai_edge_quantizer
import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import recipe
from from_onnx import Network


def main(model: str, calibration: str, out: str) -> None:
    images = np.load(calibration)
    network = litert_torch.to_channel_last_io(Network(model).eval(), args=[0]).eval()
    nhwc = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    converted = litert_torch.convert(network, (torch.from_numpy(nhwc[:1]),))
    folder = Path(out)
    converted.export(str(folder / "float.tflite"))
    quantizer = ai_edge_quantizer.Quantizer(str(folder / "float.tflite"), recipe.static_wi8_ai8())
    data = {"serving_default": [{"args_0": image[None]} for image in nhwc]}
    result = quantizer.calibrate(data)
    quantizer.quantize(result).export_model(str(folder / "int8.tflite"), overwrite=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

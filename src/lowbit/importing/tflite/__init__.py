"""Float `.tflite` files -> ONNX."""

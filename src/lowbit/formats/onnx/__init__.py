"""A quantized graph enters; an ONNX file or an archive of one leaves, and its weights and bytes can be read again."""

"""A quantized graph enters; a `.tflite` file leaves, and its weights and bytes can be read again."""

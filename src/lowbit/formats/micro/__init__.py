"""A .tflite file on a microcontroller: the operators and memory it needs, boards that it fits, its C source."""

"""A .tflite file on a microcontroller: the operators it needs, the memory it takes, the boards it fits, its C source."""

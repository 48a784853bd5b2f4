"""Float `.tflite` files -> ONNX, by the schema; LiteRT is not needed.

`operators.py` has the table from operator to function; the functions are in `layers.py`, `arithmetic.py` and
`data_movement.py`, and write into a `Translation`.
"""

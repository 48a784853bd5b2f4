"""A model file or a torch module enters; a prepared `Model` leaves, with its layers, shapes and cost.

Only this folder and formats/ touch onnx.
"""

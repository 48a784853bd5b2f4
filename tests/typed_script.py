"""A user's script, which the type checker reads with the package: what it says of types must be so, errors included."""

from typing import Any, assert_type

import numpy as np

import lowbit

model = lowbit.load("model.onnx")
assert_type(model, lowbit.Model)
quantized = lowbit.quantize(model, "int8", calibration="photos", progress=lowbit.SILENT)
assert_type(quantized, lowbit.Quantized)
comparison = lowbit.measure(["model.onnx", quantized], np.zeros((1, 3, 8, 8)), runs=0)
assert_type(comparison, lowbit.Comparison)
assert_type(comparison.rows[0].accuracy, float | None)
assert_type(lowbit.open_session(quantized).run(np.zeros(3)), dict[str, np.ndarray[Any, np.dtype[Any]]])
assert_type(lowbit.plan("model.onnx", lowbit.parse_recipe("int8")), lowbit.Plan)
try:
    comparison.plot().save("plot.svg")
except (lowbit.DataError, lowbit.OutputError) as error:
    assert_type(error.remedy, str)
lowbit.quantize(model, 8)  # type: ignore[arg-type]
lowbit.quantize(model, "int8", callibration="photos")  # type: ignore[call-arg]
print(lowbit.nothing)  # type: ignore[attr-defined]

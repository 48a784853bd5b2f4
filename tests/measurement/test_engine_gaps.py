"""Files of one recipe that are far apart on two engines are warned of; those that are not, are not."""

import dataclasses

from comparison_sample import sample_comparison
from lowbit.measurement.engine_gaps import gaps_between_engines

ROW = sample_comparison().rows[1]


def rows(**decibels):
    return [
        dataclasses.replace(ROW, engine=name, output_sqnr_db=value, file=f"{name}.onnx")
        for name, value in decibels.items()
    ]


def test_engines_far_apart_are_a_warning():
    (said,) = gaps_between_engines(rows(onnxruntime=23.5, openvino=2.5, litert=24.0))
    assert "22 dB farther from float in openvino.onnx with openvino than in litert.onnx" in said


def test_usual_differences_are_not():
    assert gaps_between_engines(rows(onnxruntime=16.2, openvino=21.0)) == ()
    assert gaps_between_engines(rows(onnxruntime=126.7, openvino=60.0)) == ()  # both are exact to anyone
    assert gaps_between_engines(rows(onnxruntime=None, openvino=20.0)) == ()


def test_recipes_and_emulated_rows_are_kept_apart():
    good, bad = rows(onnxruntime=30.0, openvino=5.0)
    assert gaps_between_engines([good, bad])
    assert gaps_between_engines([good, dataclasses.replace(bad, recipe="int4", file_recipe="")]) == ()
    assert gaps_between_engines([good, dataclasses.replace(bad, emulated="x86")]) == ()


def test_files_that_each_engine_ran_are_compared_with_themselves():
    rounded = [dataclasses.replace(row, file="rounded.onnx") for row in rows(onnxruntime=-1.4, openvino=-1.1)]
    tuned = [dataclasses.replace(row, file="tuned.onnx") for row in rows(onnxruntime=12.7, openvino=14.1)]
    assert gaps_between_engines([*rounded, *tuned]) == ()
    wrong = dataclasses.replace(tuned[1], output_sqnr_db=1.0)
    (said,) = gaps_between_engines([*rounded, tuned[0], wrong])
    assert "12 dB farther from float in tuned.onnx with openvino than in tuned.onnx with onnxruntime" in said

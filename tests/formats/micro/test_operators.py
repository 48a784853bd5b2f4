import re

import numpy as np
import pytest
from kernel_cases import CASES, SCALE, Case, conversion

from lowbit.engines.litert_operators import NAMES
from lowbit.engines.litert_reader import read_litert
from lowbit.formats.micro.kernels import CUSTOM, CUSTOM_KERNELS, KERNELS
from lowbit.formats.micro.operators import needed_operators

pytest.importorskip("ai_edge_litert")


def found(content):
    return {operator.name: operator for operator in needed_operators(read_litert(content, "test"))}


def layer(dtype, weights, *, scales=8, code="FULLY_CONNECTED"):
    """A layer with 8 outputs, its activation and weights of these types."""
    case = Case(dtype)
    shape = (8, 32) if code == "FULLY_CONNECTED" else (8, 1, 1, 8)
    scale = np.linspace(0.01, 0.02, scales, dtype=np.float32)
    weight = case.builder.constant(np.ones(shape, np.int8), scale=scale, dtype=weights)
    x = case.input((1, 32) if code == "FULLY_CONNECTED" else (1, 4, 4, 8))
    table = {"FULLY_CONNECTED": "FullyConnectedOptions", "CONV_2D": "Conv2DOptions"}[code]
    return case.file(code, [x, weight, -1], [case.tensor((1, 8) if len(shape) == 2 else (1, 4, 4, 8))], table)


def test_the_numbers_of_operators_are_those_of_the_schema():
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    numbers = {name: value for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
    assert {name: numbers[name] for name in NAMES} == {name: number for number, name in enumerate(NAMES)}
    assert numbers["CUSTOM"] == CUSTOM
    assert set(KERNELS) <= set(NAMES)


def test_each_method_is_named_after_its_operator():
    for name, kernel in KERNELS.items():
        assert kernel.method.upper() == name.replace("_", ""), name
        assert re.fullmatch(r"[A-Z]\w+", kernel.method)
    methods = [kernel.method for kernel in (*KERNELS.values(), *CUSTOM_KERNELS.values())]
    assert len(set(methods)) == len(methods)


def test_an_int8_layer_is_all_right():
    operator = found(CASES["CONV_2D"]("int8"))["CONV_2D"]
    assert (operator.method, operator.count, operator.in_float, operator.problems) == ("AddConv2D", 1, 0, ())


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (lambda: CASES["GELU"]("float32"), "GELU", "no kernel (1 of 1)"),
        (lambda: CASES["EXP"]("int8"), "EXP", "no kernel for int8 (1 of 1)"),
        (lambda: conversion("DEQUANTIZE", "float32")("float16"), "DEQUANTIZE", "no kernel for float16 (1 of 1)"),
        (lambda: conversion("QUANTIZE", "uint8")("float32"), "QUANTIZE", "no kernel from float32 to uint8 (1 of 1)"),
        (lambda: conversion("CAST", "uint8")("int8"), "CAST", "no kernel from int8 to uint8 (1 of 1)"),
        (lambda: layer("float32", "int8"), "FULLY_CONNECTED", "no kernel for float32 with weights of int8 (1 of 1)"),
        (lambda: layer("int16", "int4"), "FULLY_CONNECTED", "no kernel for int16 with weights of int4 (1 of 1)"),
        (
            lambda: layer("int8", "int4"),
            "FULLY_CONNECTED",
            "no kernel for 4-bit weights with a scale per channel (1 of 1)",
        ),
    ],
)
def test_what_has_no_kernel_is_named(content, name, problem):
    assert found(content())[name].problems == (problem,)


@pytest.mark.parametrize(("scales", "code"), [(1, "FULLY_CONNECTED"), (8, "CONV_2D")])
def test_four_bit_weights_that_have_kernels(scales, code):
    assert found(layer("int8", "int4", scales=scales, code=code))[code].problems == ()


@pytest.mark.parametrize(("scales", "problems"), [(1, 0), (8, 1)])
def test_decoding_with_a_scale_per_channel_is_wrong_there(scales, problems):
    case = Case("int8")
    weight = case.builder.constant(np.ones((8, 4), np.int8), scale=np.tile(SCALE, scales))
    operator = found(case.file("DEQUANTIZE", [weight], [case.tensor((8, 4), "float32")]))["DEQUANTIZE"]
    assert len(operator.problems) == problems
    assert all("wrong answers" in problem for problem in operator.problems)

"""The tables against TensorFlow Lite Micro itself, wherever its wheel is installed (`pip install tflite-micro`)."""

import os
import re
import tempfile

import numpy as np
import pytest
from kernel_cases import CASES, TYPES
from test_arena import NETWORKS, SINGLE, desktop, network

import lowbit
import networks
from lowbit.engines.litert_reader import read_litert
from lowbit.formats.micro.kernels import KERNELS

runtime = pytest.importorskip("tflite_micro").runtime
litert = pytest.importorskip("ai_edge_litert.interpreter")

# Its answers differ from LiteRT's, or it takes numbers for truth values.
LEFT_OUT = {("RSQRT", "int16"), ("GREATER", "int16"), ("SUM", "int16")}
LEFT_OUT |= {(f"LOGICAL_{word}", dtype) for word in ("AND", "OR") for dtype in TYPES if dtype != "bool"}


def opened(content, size=1 << 22):
    return runtime.Interpreter.from_bytes(content, arena_size=size)


def inputs(interpreter, count, rng):
    for place in range(count):
        detail = interpreter.get_input_details(place)
        shape, dtype = detail["shape"], detail["dtype"]
        if dtype == np.float32:
            yield rng.uniform(0.1, 2, shape).astype(np.float32)
        else:
            yield rng.integers(0 if dtype == np.bool_ else 1, 2 if dtype == np.bool_ else 4, shape).astype(dtype)


def answers(content):
    """What it says; and what LiteRT's reference kernels say, None if they refuse the file."""
    micro = opened(content)
    count = len(read_litert(content, "test").graphs[0].inputs)
    given = list(inputs(micro, count, np.random.default_rng(0)))
    for place, x in enumerate(given):
        micro.set_input(x, place)
    micro.invoke()
    reference = litert.OpResolverType.BUILTIN_REF
    try:
        full = litert.Interpreter(model_content=content, experimental_op_resolver_type=reference)
        full.allocate_tensors()
        for detail, x in zip(full.get_input_details(), given, strict=True):
            full.set_tensor(detail["index"], x)
        full.invoke()
    except (RuntimeError, ValueError):
        return micro.get_output(0), None
    return micro.get_output(0), full.get_tensor(full.get_output_details()[0]["index"])


def recorded(content):
    """Bytes of the plan, and of what stays."""
    interpreter = opened(content)
    with tempfile.TemporaryFile("w+") as told:
        before = os.dup(2)
        os.dup2(told.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(before, 2)
            os.close(before)
        told.seek(0)
        text = told.read()
    return tuple(int(re.search(rf"Arena allocation {part} (\d+)", text)[1]) for part in ("head", "tail"))


@pytest.mark.parametrize("code", CASES)
def test_the_types_of_a_kernel(code):
    known = KERNELS[code].types.split() if code in KERNELS else []
    for dtype in TYPES:
        if (code, dtype) in LEFT_OUT:
            continue
        content = CASES[code](dtype)
        if dtype not in known:
            with pytest.raises(RuntimeError):
                opened(content).invoke()
            continue
        found, wanted = answers(content)
        if wanted is not None:
            np.testing.assert_allclose(found.astype(float), wanted.astype(float), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("code", "dtype"), SINGLE)
def test_what_one_operator_takes_was_recorded_so(code, dtype):
    assert recorded(CASES[code](dtype)) == SINGLE[code, dtype]


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_network_takes_was_recorded_so(name):
    content = network(name)
    planned, smallest = NETWORKS[name]
    assert recorded(content)[0] == planned
    opened(content, smallest)
    with pytest.raises(RuntimeError):
        opened(content, smallest - 64)


@pytest.mark.parametrize("given", ["int8", "float32"])
def test_a_file_of_lowbits_answers_as_with_litert(given, tmp_path):
    model = lowbit.load(networks.residual_network())
    path = tmp_path / "net.tflite"
    quantized = lowbit.quantize(model, "int8", calibration=networks.inputs(3), effort="fast")
    quantized.save(path, form=lowbit.FileForm(input=given, output_type="int8"))
    found, wanted = answers(path.read_bytes())
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
    content = path.read_bytes()
    assert recorded(content)[0] == desktop(content).activations + desktop(content).scratch

"""The arena against what TensorFlow Lite Micro's own interpreter took, measured once with the wheel tflite-micro
0.dev20261023182759 (8-byte pointers, reference kernels); `test_interpreter.py` measures again where it is installed."""

import numpy as np
import pytest
from kernel_cases import CASES

import litert_cases
from lowbit.engines.litert_reader import read_litert
from lowbit.errors import ModelError
from lowbit.formats.litert.write import to_litert
from lowbit.formats.micro import arena
from lowbit.formats.micro.arena import arena_of

pytest.importorskip("ai_edge_litert")

# operator and type -> bytes of the plan, and of what stays
SINGLE = {
    ("CONV_2D", "int8"): (384, 1120),
    ("CONV_2D", "float32"): (1536, 1056),
    ("DEPTHWISE_CONV_2D", "int16"): (512, 1056),
    ("FULLY_CONNECTED", "int8"): (48, 1072),
    ("TRANSPOSE_CONV", "int8"): (1408, 1040),
    ("TRANSPOSE_CONV", "int16"): (2816, 1040),
    ("MEAN", "int8"): (208, 912),
    ("MEAN", "int16"): (336, 912),
    ("REDUCE_MAX", "int8"): (176, 912),
    ("MIRROR_PAD", "int8"): (448, 896),
    ("ADD_N", "int8"): (400, 1008),
    ("SOFTMAX", "int16"): (512, 2992),
    ("SPLIT", "int8"): (256, 976),
    ("CONCATENATION", "int8"): (512, 1040),
    ("BATCH_MATMUL", "int8"): (112, 1136),
    ("SELECT_V2", "int8"): (512, 1056),
    ("LOGISTIC", "float32"): (1024, 784),
}
# network of `litert_cases` in int8 -> bytes of the plan, and of the smallest arena that works
NETWORKS = {
    "residual": (368, 2232),
    "squeeze-excite": (736, 2555),
    "ConvTranspose": (2288, 3804),
    "channel shuffle": (960, 2682),
    "Concat": (1200, 2689),
    "Conv/depthwise": (3200, 4607),
    "Pad": (848, 2203),
    "attention": (448, 3328),
}


def desktop(content):
    return arena_of(read_litert(content, "test"), "test", kernels="reference", pointer=8)


def network(name):
    rng = np.random.default_rng([1, len(name)])
    return to_litert(litert_cases.integer(litert_cases.CASES[name](rng), rng))


@pytest.mark.parametrize(("code", "dtype"), SINGLE)
def test_the_plan_of_one_operator_is_the_interpreters(code, dtype):
    planned, kept = SINGLE[code, dtype]
    made = desktop(CASES[code](dtype))
    assert made.activations + made.scratch == planned
    assert made.bytes - made.activations - made.scratch - made.planning == pytest.approx(kept, rel=0.04)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plan_of_a_network_is_the_interpreters_and_its_arena_is_large_enough(name):
    planned, smallest = NETWORKS[name]
    made = desktop(network(name))
    assert made.activations + made.scratch == planned
    assert smallest - 8 <= made.bytes <= 1.1 * smallest


def test_parts_sum_to_the_whole_and_microcontrollers_need_less():
    content = network("residual")
    small = arena_of(read_litert(content, "test"), "test", kernels="reference")
    assert sum(small.parts.values()) == small.bytes
    assert small.activations == desktop(content).activations
    assert small.bytes < desktop(content).bytes


def test_cmsis_nn_copies_two_patches_as_16_bits():
    # 3 x 3 x 8 weights each; the layer's 128 + 256 bytes of activations are in use at the same time.
    file = read_litert(CASES["CONV_2D"]("int8"), "test")
    assert arena_of(file, "test", kernels="cmsis-nn").scratch == 2 * 2 * 72
    assert arena_of(file, "test", kernels="reference").scratch == 0


def test_the_peak_is_named_with_its_tensors():
    content = CASES["CONCATENATION"]("int8")
    peak = desktop(content).peak
    assert (peak.operator, peak.place, peak.bytes) == ("CONCATENATION", 0, 512)
    assert [shape for _, shape, _ in peak.tensors] == [(1, 4, 4, 16), (1, 4, 4, 8), (1, 4, 4, 8)]


def test_too_many_activations_are_refused(monkeypatch):
    monkeypatch.setattr(arena, "MOST_BUFFERS", 2)
    with pytest.raises(ModelError, match="3 activations, too many for a microcontroller"):
        desktop(CASES["ADD"]("int8"))

"""Seven bits where an x86 without VNNI would saturate, eight everywhere else."""

import pytest

import lowbit
import networks
from lowbit.errors import SchemeError
from lowbit.graph.ops import layers
from lowbit.quantization.targets import TARGETS, target_of, weights_for
from lowbit.schemes.linear import Linear


def test_which_target_a_machine_is():
    assert target_of("x86_64", ("avx2", "avx512_vnni")) == "x86-vnni"
    assert target_of("AMD64", ("avx2", "avx_vnni")) == "x86-vnni"
    assert target_of("x86_64", ("avx2", "avx512bw")) == target_of("AMD64", ()) == "x86"
    assert target_of("aarch64", ("asimddp",)) == target_of("arm64", ()) == "arm"


def test_only_dense_layers_lose_a_bit_and_only_without_vnni():
    eight = Linear(8, per="channel")
    for layer in layers(lowbit.load(networks.residual_network())):
        given, reason = weights_for("x86", eight, layer)
        assert (given.bits, bool(reason)) == ((8, False) if layer.node == "deep" else (7, True))
        assert given.code_range == ((-127, 127) if layer.node == "deep" else (-63, 63))
        for target in set(TARGETS) - {"x86"}:
            assert weights_for(target, eight, layer) == (eight, "")
        assert weights_for("x86", Linear(4), layer) == (Linear(4), "")


def test_no_such_target():
    with pytest.raises(SchemeError, match="no target is called 'vax'"):
        weights_for("vax", Linear(8), layers(lowbit.load(networks.residual_network()))[0])

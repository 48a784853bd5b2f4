"""Seven bits where an x86 without VNNI would saturate, eight everywhere else."""

import pytest

import lowbit
import networks
from lowbit.errors import SchemeError
from lowbit.formats.devices import DEVICES
from lowbit.formats.onnx.saturation import saturating
from lowbit.graph.ops import layers
from lowbit.quantization.planning.target import TARGETS, resolved, target_of, weights_for
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
        for target in set(TARGETS) - {"x86", *DEVICES}:
            assert weights_for(target, eight, layer) == (eight, "")
        assert weights_for("x86", Linear(4), layer) == (Linear(4), "")


def test_no_such_target():
    with pytest.raises(SchemeError, match="unknown target 'vax'"):
        resolved("vax")
    assert resolved("native") in TARGETS
    assert resolved("x86") == "x86"


def test_the_plan_says_which_layers_get_seven_bits_and_why_and_strict_accepts_it():
    model = lowbit.load(networks.residual_network())
    plan = lowbit.plan(model, lowbit.parse_recipe("int8", target="x86"))
    given = {tensor.layers[0]: tensor for tensor in plan.tensors if tensor.layers}
    assert plan.target == "x86"
    assert {name: tensor.given.bits for name, tensor in given.items()} == {
        "stem": 7, "narrow": 7, "wide": 7, "deep": 8, "back": 7, "last": 7, "fc": 7,
    }  # fmt: skip
    assert all(tensor.asked == Linear(8, per="channel") for tensor in given.values())
    assert "saturate" in given["wide"].reason
    assert given["deep"].reason == ""
    assert plan.downgrades == ()
    plan.require_all()
    (adaptation,) = plan.adaptations
    assert "6 of 7" in adaptation
    assert plan.to_json()["target"] == "x86"
    assert lowbit.plan(model, lowbit.parse_recipe("int8", target="x86-vnni")).adaptations == ()
    assert lowbit.plan(model, "int8").target == resolved("native")
    assert lowbit.plan(model, "linear8").target == ""


def test_written_files_hold_seven_bits():
    model = lowbit.load(networks.residual_network())
    images = lowbit.open_images(list(networks.inputs(8)), None)
    for target, most in (("x86", 0), ("x86-vnni", 1)):
        recipe = lowbit.parse_recipe("int8", target=target)
        quantized = lowbit.quantize(model, recipe, calibration=images, effort="fast", strict=True)
        assert (sum(saturating(quantized.to_bytes()).risky.values()) > 0) == bool(most)


def test_only_integer_recipes_have_a_target():
    with pytest.raises(SchemeError, match="computes in float"):
        lowbit.parse_recipe("linear8", target="x86")

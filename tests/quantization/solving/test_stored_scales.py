"""Scales and biases in half precision: stored as such, decoded bit for bit, and only where that is harmless."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import lowbit
import networks
from lowbit.engines import open_session
from lowbit.formats.onnx.decode_nodes import BYTE_FROM, HALF_FROM, scale_table
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.read import layer_weights
from lowbit.graph.ops import layers
from lowbit.quantization.solving.stored_scales import narrow_bias, stored_scales, with_narrow_scales
from lowbit.schemes.linear import Linear


@pytest.mark.parametrize("recipe", ["linear3", "linear5"])
def test_files_hold_half_precision_and_runtimes_fold_it(recipe, tmp_path):
    model = lowbit.load(networks.residual_network(first=48))
    images = lowbit.open_images(networks.inputs(24), None)
    quantized = lowbit.quantize(model, recipe, calibration=images, effort="fast")
    path = quantized.save(tmp_path / "m.onnx")
    numbers = {t.name: t for t in onnx.load(path).graph.initializer}
    wide = [t.name for t in numbers.values() if t.data_type == TensorProto.FLOAT and np.prod(t.dims) >= 32]
    assert not wide
    ledger = read_ledger(path)
    assert sum(ledger.bytes.values()) == path.stat().st_size
    assert ledger.counts["scales"] == sum(codes.scale.size for codes in quantized.graph.weights.values())
    assert ledger.counts["biases"] == sum(layer.out_channels for layer in layers(model))
    seen = layer_weights(path)
    for layer in layers(model):
        np.testing.assert_array_equal(seen[layer.node], quantized.graph.weights[layer.weight].decode())
    optimized = tmp_path / "optimized.onnx"
    open_session(path, threads=1, optimized_to=optimized)
    assert not {"Cast", "Mul", "Mod", "Div"} & {node.op_type for node in onnx.load(optimized).graph.node}


def test_packed_biases_are_folded_too(tmp_path):
    model = lowbit.load(networks.residual_network(first=48))
    packed = lowbit.pack(
        model, lowbit.Goal(bits_per_weight=9), calibration=networks.inputs(24), short_names=True, effort="fast"
    )
    path, optimized = tmp_path / "m.onnx", tmp_path / "optimized.onnx"
    path.write_bytes(packed.content)
    open_session(path, threads=1, optimized_to=optimized)
    assert not {"Cast", "Mul", "Mod", "Div", "Sub"} & {node.op_type for node in onnx.load(optimized).graph.node}
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = {op.get_rt_info()["layerType"] for op in compiled.get_runtime_model().get_ops() if op.get_rt_info()}
    assert not kinds & {"Convert", "Eltwise_Mul", "Gather"}
    x = networks.inputs(4, seed=3)
    session = open_session(path, threads=1)
    mine = session.run({"x": x})["logits"]
    np.testing.assert_allclose(compiled([x])[0], mine, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "table"), [("linear4", True), ("linear2", True), ("linear3", True), ("linear5", False)]
)
def test_scales_of_few_bits_share_a_table_and_zero_points_their_bytes(recipe, table, tmp_path):
    model = lowbit.load(networks.residual_network(first=2000))
    quantized = lowbit.quantize(model, recipe)
    path = quantized.save(tmp_path / "m.onnx")
    ledger = read_ledger(path)
    wide = [codes for codes in quantized.graph.weights.values() if codes.scale.size >= BYTE_FROM]
    assert wide
    assert ledger.counts["scales"] == sum(codes.scale.size for codes in quantized.graph.weights.values())
    assert ledger.bytes["scales"] / ledger.counts["scales"] == pytest.approx(1 if table else 2, abs=0.15)
    affine = [codes for codes in quantized.graph.weights.values() if codes.zero_point is not None]
    if affine:
        assert ledger.counts["zero_points"] == sum(codes.zero_point.size for codes in affine)
    if affine and recipe in ("linear2", "linear4"):
        assert ledger.bytes["zero_points"] < ledger.counts["zero_points"]
    seen = layer_weights(path)
    for layer in layers(model):
        np.testing.assert_array_equal(seen[layer.node], quantized.graph.weights[layer.weight].decode())
    optimized = tmp_path / "optimized.onnx"
    open_session(path, threads=1, optimized_to=optimized)
    assert not {"Cast", "Mul", "Mod", "Div", "Gather"} & {node.op_type for node in onnx.load(optimized).graph.node}
    if recipe != "linear4":
        return  # one is packed in an archive, which takes longest
    assert lowbit.formats.onnx.archive.unpack(lowbit.formats.onnx.archive.pack(path.read_bytes())) == path.read_bytes()


def test_too_many_different_scales_share_no_table():
    generator = np.random.default_rng(0)
    scales = generator.uniform(0.01, 1, 300).astype(np.float32)

    def codes(values):
        return Linear(4).from_codes(np.zeros((len(values), 2), np.int8), values)

    assert scale_table([codes(scales)]) is None
    assert scale_table([codes(scales[:100])]) is None  # not worth it
    narrow = stored_scales(scales, 4)[0]
    table = scale_table([codes(narrow)] * 5)
    np.testing.assert_array_equal(table, np.unique(narrow))
    np.testing.assert_allclose(narrow, scales, rtol=1 / 64)
    assert scale_table([codes(narrow)]) is None


def test_values_that_half_precision_would_harm_stay():
    scales = np.random.default_rng(0).uniform(2**-14, 1, 999).astype(np.float32)
    tiny, huge = np.append(scales, np.float32(1e-6)), np.append(scales, np.float32(1e5))
    for values in (tiny, huge):
        np.testing.assert_array_equal(stored_scales(values, 4), [values])
    np.testing.assert_array_equal(narrow_bias(-huge), -huge)
    (found,) = stored_scales(scales, 8)
    np.testing.assert_allclose(found, scales, rtol=2**-11)
    assert found.tobytes() != scales.tobytes()


def test_values_that_would_take_no_fewer_bytes_stay():
    scales = np.random.default_rng(0).uniform(0.01, 1, BYTE_FROM).astype(np.float32)
    few, some = scales[: HALF_FROM - 1], scales[: BYTE_FROM - 1]
    np.testing.assert_array_equal(narrow_bias(few), few)
    np.testing.assert_array_equal(stored_scales(few, 4), [few])
    np.testing.assert_array_equal(stored_scales(some, 4), [some.astype(np.float16)])
    assert len(stored_scales(scales, 4)) == 3
    assert len(stored_scales(scales, 5)) == 1


@pytest.mark.parametrize("scheme", [Linear(4), Linear(3, symmetric=False), Linear(4, per="group", group_size=5)])
def test_coarse_scales_go_where_the_weights_like_it_better(scheme):
    weight = np.random.default_rng(1).normal(size=(BYTE_FROM, 12, 1, 1)).astype(np.float32)
    plain = scheme.encode(weight)
    narrow = with_narrow_scales(plain, weight)
    nearest, below, above = stored_scales(plain.scale, scheme.bits)
    assert ((below <= plain.scale) & (plain.scale <= above)).all()
    np.testing.assert_allclose(above, below, rtol=1 / 32 + 1e-6)
    assert ((narrow.scale == below) | (narrow.scale == above)).all()
    assert (narrow.scale != nearest).any()

    def off(codes):
        errors = np.square(codes.blocks.to_rows(codes.decode()) - codes.blocks.to_rows(weight))
        return codes.blocks.reduce(np.add, errors)

    for scale in (nearest, below, above):
        other = scheme.encode_with(weight, scale, zero_point=plain.zero_point)
        assert (off(narrow) <= off(other) * (1 + 1e-6)).all()
    assert off(narrow).sum() < off(plain).sum()

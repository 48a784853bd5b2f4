"""Scales and biases in half precision: stored as such, decoded bit for bit, and only where that is harmless."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import lowbit
import networks
from lowbit.engines import open_session
from lowbit.formats.ledger import read_ledger
from lowbit.formats.reading import layer_weights
from lowbit.graph.ops import layers
from lowbit.quantization.narrow import narrow_bias, narrow_scales


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
    assert ledger.counts["scales"] == sum(codes.scale.size for codes in quantized.encoded.weights.values())
    assert ledger.counts["biases"] == sum(layer.out_channels for layer in layers(model))
    seen = layer_weights(path)
    for layer in layers(model):
        np.testing.assert_array_equal(seen[layer.node], quantized.encoded.weights[layer.weight].decode())
    optimized = tmp_path / "optimized.onnx"
    open_session(path, threads=1, optimized_to=optimized)
    assert not {"Cast", "Mul", "Mod", "Div"} & {node.op_type for node in onnx.load(optimized).graph.node}


def test_packed_biases_are_folded_too(tmp_path):
    model = lowbit.load(networks.residual_network(first=48))
    packed = lowbit.pack(model, calibration=networks.inputs(24), bits_per_weight=9, short_names=True, effort="fast")
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


def test_values_that_half_precision_would_harm_stay():
    tiny, huge = np.array([1e-6, 1.0], np.float32), np.array([1.0, 1e5], np.float32)
    for values in (tiny, huge):
        np.testing.assert_array_equal(narrow_scales(values), values)
    np.testing.assert_array_equal(narrow_bias(-huge), -huge)
    scales = np.random.default_rng(0).uniform(2**-14, 1, 999).astype(np.float32)
    np.testing.assert_allclose(narrow_scales(scales), scales, rtol=2**-11)
    assert narrow_scales(scales).tobytes() != scales.tobytes()

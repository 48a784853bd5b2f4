"""Two files layer by layer: files of ONNX Runtime's tool in both its formats, and of lowbit itself."""

import numpy as np
import onnx
import pytest

import lowbit
import networks
from graphs import change_weights
from lowbit.diagnosis.against import saturating
from lowbit.diagnosis.diagnosis import diagnose
from lowbit.diagnosis.findings import BROKEN, PARTING
from lowbit.diagnosis.weights import weight_losses
from lowbit.errors import EngineError, ModelError
from lowbit.formats.onnx.inner_tensors import READ, decoded_weights, with_inner_tensors
from lowbit.measurement import entries
from lowbit.measurement.memory import Memory


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The float network and what `quantize_static` makes of it."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("files")
    onnx.save(networks.residual_network(), folder / "float.onnx")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.images = ({"x": x[None]} for x in networks.inputs(8))

        def get_next(self):
            return next(self.images, None)

    for name in ("QDQ", "QOperator"):
        quantization.quantize_static(
            str(folder / "float.onnx"), str(folder / f"{name}.onnx"), Reader(),
            quant_format=quantization.QuantFormat[name], per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Files are ours: none needs to be tried in a process of its own."""
    monkeypatch.setattr(entries, "memory", lambda *_, **__: Memory(None, None))


def against(folder, name, **options):
    return diagnose(str(folder / "float.onnx"), {"x": networks.inputs(4, seed=5)}, against=folder / name, **options)


@pytest.mark.parametrize("name", ["QDQ.onnx", "QOperator.onnx"])
def test_a_sound_file_of_another_tool_has_no_findings(files, name):
    result = against(files, name)
    assert not result.findings
    assert result.error < 0.05
    assert [row.node for row in result.tensors] == ["stem", "narrow", "wide", "deep", "back", "last", "fc"]
    assert all(row.other and row.weight_error < 1e-3 for row in result.tensors), result.tensors
    assert all(row.added is None or row.added < 0.02 for row in result.tensors)


@pytest.mark.parametrize("seed", range(3))
def test_a_layer_whose_weights_were_broken_is_named(files, tmp_path, import_benchmark, seed):
    planted = import_benchmark("planted")
    cause, node = planted.broken_weights(files / "QDQ.onnx", tmp_path / "broken.onnx", np.random.default_rng(seed))
    result = diagnose(str(files / "float.onnx"), {"x": networks.inputs(4, seed=5)}, against=tmp_path / "broken.onnx")
    assert [one.where for one in result.of(cause)] == [node]


def test_integer_operators_are_decoded(files):
    floats, given = (decoded_weights(files / name) for name in ("float.onnx", "QOperator.onnx"))
    for name, weight in floats.items():
        (other,) = [value for key, value in given.items() if key.startswith(name)]
        other = other if other.shape == weight.shape else other.T
        assert np.abs(other - weight).max() <= np.abs(weight).max() / 100


def test_codes_are_read_as_what_they_stand_for(files):
    content, names = with_inner_tensors(files / "QOperator.onnx")
    assert any(name.startswith(READ) for name in names)
    assert {output.name for output in onnx.load_from_string(content).graph.output} >= set(names)


@pytest.mark.parametrize("recipe", ["int8", "linear4", "cluster4"])
def test_own_files_have_no_findings(files, recipe):
    samples = {"x": networks.inputs(24)}
    steps = ("equalization",) if recipe != "cluster4" else ()
    model = lowbit.load(files / "float.onnx")
    lowbit.quantize(model, recipe, calibration=samples, steps=steps).save(files / f"{recipe}.onnx")
    result = against(files, f"{recipe}.onnx")
    assert not result.of(BROKEN)


@pytest.mark.parametrize("clip", [None, 6.0])
def test_channels_that_were_scaled_and_tensors_that_were_moved_are_no_errors(tmp_path, clip):
    """The file is equalized, and zero points have gone into biases: inside it are other numbers than in the model."""
    onnx.save(networks.depthwise_network(clip=clip), tmp_path / "float.onnx")
    samples = {"x": networks.inputs(32)}
    quantized = lowbit.quantize(
        tmp_path / "float.onnx", "int8", calibration=samples, steps=("equalization", "bias"), effort="fast"
    )
    assert quantized.steps[0].kept
    quantized.save(tmp_path / "int8.onnx")
    result = against(tmp_path, "int8.onnx")
    assert not result.of(BROKEN)
    assert all(row.error < 0.1 and row.added < 0.05 and row.weight_error < 0.01 for row in result.tensors[:-1])


def test_zero_points_that_have_gone_into_biases_are_no_errors(files):
    quantized = lowbit.quantize(files / "float.onnx", "int8", calibration={"x": networks.inputs(32)}, effort="fast")
    quantized.save(files / "moved.onnx")
    result = against(files, "moved.onnx")
    assert not result.findings
    assert all(row.error < 0.02 and row.added < 0.02 for row in result.tensors), result.tensors


def test_channels_that_nothing_makes_up_for_are_an_error(files, tmp_path):
    proto = onnx.load(files / "QDQ.onnx")
    decoding = (node for node in proto.graph.node if node.op_type == "DequantizeLinear")
    node = next(node for node in decoding if "narrow.weight" in node.input[0])
    scale = next(onnx.numpy_helper.to_array(one) for one in proto.graph.initializer if one.name == node.input[1])
    change_weights(proto, (), {node.input[1]: np.float32(3) * scale})
    onnx.save(proto, tmp_path / "scaled.onnx")
    result = diagnose(str(files / "float.onnx"), {"x": networks.inputs(4)}, against=tmp_path / "scaled.onnx")
    assert [(one.cause, one.where) for one in result.findings] == [(BROKEN, "narrow")]


def test_where_outputs_part_is_named_where_weights_are_sound(files, tmp_path):
    """A scale of an activation that is far too small: all weights are the float ones."""
    proto = onnx.load(files / "QDQ.onnx")
    node = next(node for node in proto.graph.node if node.op_type == "QuantizeLinear" and "wide" in node.input[0])
    change_weights(proto, (), {node.input[1]: np.float32(1e-3)})
    onnx.save(proto, tmp_path / "narrow.onnx")
    result = diagnose(str(files / "float.onnx"), {"x": networks.inputs(4)}, against=tmp_path / "narrow.onnx")
    assert [(one.cause, one.where) for one in result.findings] == [(PARTING, "wide")]


def test_weights_that_were_equalized_are_not_lost():
    model = lowbit.load(networks.residual_network())
    weight = model.weights["wide.weight"]
    scaled = weight * np.geomspace(0.1, 10, len(weight), dtype=np.float32)[:, None, None, None]
    loss = weight_losses(model, {}, {"wide": scaled})["wide"]
    assert loss.error > 0.5
    assert loss.scaled < 1e-6


def test_what_cannot_be_compared_is_refused(files, tmp_path, monkeypatch):
    (tmp_path / "other.tflite").write_bytes(b"")
    with pytest.raises(ModelError, match="tflite"):
        diagnose(str(files / "float.onnx"), {"x": networks.inputs(2)}, against=tmp_path / "other.tflite")
    (tmp_path / "other.onnx").write_bytes(b"no")
    with pytest.raises((ModelError, EngineError)):
        diagnose(str(files / "float.onnx"), {"x": networks.inputs(2)}, against=tmp_path / "other.onnx")
    monkeypatch.setattr(entries, "memory", lambda *_, **__: Memory(None, None, killed="SIGSEGV"))
    with pytest.raises(EngineError, match="SIGSEGV"):
        against(files, "QDQ.onnx")


def test_a_model_from_memory_can_be_compared(files):
    result = diagnose(networks.residual_network(), {"x": networks.inputs(2)}, against=files / "QDQ.onnx")
    assert not result.findings


def test_a_model_of_a_fixed_batch_is_run_so(files):
    model = lowbit.load(files / "float.onnx", input_sizes={"x": (4, 3, 16, 16)})
    result = diagnose(model, {"x": networks.inputs(9, seed=5)}, against=files / "QDQ.onnx")
    assert not result.findings
    assert result.samples == 8
    assert all(row.added is not None for row in result.tensors[:4])


def test_kernels_that_compute_no_worse_are_not_blamed():
    (found,) = saturating("q.onnx", steps=0.3, error=0.35, said=0.02)
    assert found.what == "answers are 0.3 from what the file says, computed step by step"
    assert saturating("q.onnx", steps=0.04, error=0.16, said=0.17) == ()
    assert saturating("q.onnx", steps=0.076, error=0.049, said=0.11) == ()
    assert saturating("q.onnx", steps=0.01, error=0.2, said=0.1) == ()

"""A new engine is one file and one row: here onnx's own reference evaluator, with this file as its module."""

import re

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import lowbit
import networks
from lowbit import engines
from lowbit.engines import ENGINES, Engine, chosen_engines, engine_version, installed_engines
from lowbit.engines.session import WrittenFile
from lowbit.errors import EngineError
from lowbit.measurement import microkernels, peaks, roofline
from lowbit.measurement.conditions import CompareOptions, Conditions

# The row.
REFERENCE = Engine("the reference", __name__, "onnx", integer_file=WrittenFile("openvino", "-reference.onnx"))


# The file.
class ReferenceSession:
    """A model in onnx's reference evaluator."""

    engine = "reference"

    def __init__(self, model):
        self._evaluator = ReferenceEvaluator(model)
        self.input_names = tuple(self._evaluator.input_names)
        self.output_names = tuple(self._evaluator.output_names)

    def run(self, inputs):
        return dict(zip(self.output_names, self._evaluator.run(None, dict(inputs)), strict=True))


def open_session(model, *, threads, optimized_to):
    try:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))
        proto.opset_import[0].version = 19  # the evaluator has no older DequantizeLinear
    except Exception as error:
        raise EngineError(f"the reference refuses the model: {error}") from error
    return ReferenceSession(proto)


def version():
    return onnx.__version__


def remarks(path):
    return (f"{path.name} was run by the reference.",)


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setitem(ENGINES, "reference", REFERENCE)
    return "reference"


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


def images(count, seed=0):
    return lowbit.open_images(list(networks.inputs(count, seed=seed)), None, values="model")


def test_it_is_listed_and_opened(engine, model):
    assert "reference" in installed_engines()
    assert chosen_engines("onnxruntime,reference") == ("onnxruntime", "reference")
    assert engine_version("reference") == onnx.__version__
    x = networks.inputs(4)
    sessions = [engines.open_session(model.to_bytes(), engine=name, threads=1) for name in ("reference", "onnxruntime")]
    found, wanted = (session.run({"x": x})["logits"] for session in sessions)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(EngineError, match="whole models only"):
        engines.open_session(model.light(), engine="reference")


def test_files_are_measured_with_it(engine, model, tmp_path):
    paths = [lowbit.quantize(model, recipe).save(tmp_path / f"{recipe}.onnx") for recipe in ("float", "linear4")]
    found = lowbit.measure(paths, images(8), conditions=Conditions("onnxruntime,reference", runs=1, with_memory=False))
    assert [row.engine for row in found.rows] == ["onnxruntime", "reference"] * 2
    _, second, third, fourth = found.rows
    assert second.kl < 1e-6
    assert fourth.kl == pytest.approx(third.kl, rel=1e-3)
    assert second.latency_ms > 0
    assert "reference" in found.environment.engine


@pytest.mark.usefixtures("quick_measuring")
def test_a_comparison_writes_its_file(engine, model, tmp_path):
    found = lowbit.compare(
        model,
        images(8),
        calibration=images(8, seed=1),
        recipes=["int8"],
        folder=tmp_path,
        conditions=Conditions("onnxruntime,reference", runs=0),
        options=CompareOptions(effort="fast"),
    )
    own = [(re.sub("^.*?-", "", row.file), row.engine) for row in found.rows]
    assert own == [
        ("float.onnx", "onnxruntime"),
        ("float.onnx", "reference"),
        ("int8.onnx", "onnxruntime"),
        ("int8-reference.onnx", "reference"),
    ]
    assert found.rows[3].kl == pytest.approx(found.rows[2].kl, abs=0.01)
    assert any("run by the reference" in note for note in found.rows[3].details.notes)


def test_the_processor_is_measured_with_it(engine, model, monkeypatch):
    small = {name: ((8,) * 3, size, depthwise, 4) for name, (_, size, depthwise, _) in microkernels.KERNELS.items()}
    small["shallow"] = ((8, 16) * 2, 1, False, 4)
    monkeypatch.setattr(microkernels, "KERNELS", small)
    monkeypatch.setattr(peaks, "KERNELS", small)
    monkeypatch.setattr(peaks, "ROUNDS", 1)
    measured = peaks.measure_peaks(engine="reference")
    assert measured.engine == "reference"
    assert "reference" in roofline.outlook(model, measured).verdict

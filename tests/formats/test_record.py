"""Every file says by what it was made; the same inputs give the same record, and others another."""

import json
import os
import platform
import subprocess
import sys

import onnx
import pytest

import lowbit
import networks
from lowbit.data.dataset import fingerprint_of
from lowbit.engines.litert_reader import read_litert
from lowbit.formats.onnx import archive
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.record import DIGITS, PACKAGES, RECORD_KEY, tools
from lowbit.processor import kernels
from lowbit.quantization.rate.goal import Goal


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


@pytest.fixture(scope="module")
def data(model):
    return lowbit.open_data(networks.inputs(8), model)


@pytest.fixture(scope="module")
def quantized(model, data):
    return lowbit.quantize(model, "int8", calibration=data, effort="fast")


def record_of(content):
    entries = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}
    return json.loads(entries[RECORD_KEY])


def test_an_onnx_file_names_all_that_made_it(model, data, quantized):
    made = record_of(quantized.to_bytes())
    assert made["model"] == model.sha256[:DIGITS]
    assert made["calibration"] == fingerprint_of(data.digests, None)[:DIGITS]
    assert made["seed"] == 0
    assert made["processor"] == kernels()
    assert made["versions"].keys() == {"lowbit", *PACKAGES}
    assert made["versions"]["lowbit"] == lowbit.__version__
    assert made["versions"]["onnx"] == onnx.__version__


def test_every_form_has_the_same_record(quantized, tmp_path):
    wanted = record_of(quantized.to_bytes())
    assert record_of(quantized.to_bytes(lowbit.FileForm(short_names=True))) == wanted
    assert record_of(quantized.to_bytes(lowbit.FileForm(to="openvino"))) == wanted
    pytest.importorskip("ai_edge_litert")
    path = quantized.save(tmp_path / "q.tflite")
    assert json.loads(read_litert(path.read_bytes(), str(path)).text(RECORD_KEY)) == wanted


def test_an_archive_for_a_goal_names_what_decided_its_size(model, data):
    judging = lowbit.open_data(networks.inputs(6, seed=5), model)
    packed = lowbit.pack(model, Goal(size=5000), calibration=data, effort="fast")
    made = record_of(archive.unpack(packed.archive))
    assert made["calibration"] == data.fingerprint()[:DIGITS]
    assert "evaluation" not in made
    packed = lowbit.pack(model, Goal(max_drop=90.0, data=judging), calibration=data, effort="fast")
    assert record_of(packed.content)["evaluation"] == judging.fingerprint()[:DIGITS]


def test_a_plan_names_model_and_tools(model, tmp_path):
    written = json.loads(lowbit.write_plan(lowbit.plan(model, "int8"), model, tmp_path / "plan.json").read_text())
    assert written["model"]["sha256"] == model.sha256
    assert written["made"] == tools()


def test_without_images_no_data_is_named(model):
    made = record_of(lowbit.quantize(model, "linear4").to_bytes())
    assert made.keys() == {"model", "recipe", *tools()}
    assert made["recipe"] == "linear4"


def test_another_model_and_other_images_have_another_record(model, data, quantized):
    other = lowbit.quantize(model, "int8", calibration=networks.inputs(8, seed=2), effort="fast")
    before, after = record_of(quantized.to_bytes()), record_of(other.to_bytes())
    assert {key for key in before if before[key] != after[key]} == {"calibration"}
    other = lowbit.quantize(networks.residual_network(seed=1), "int8", calibration=data, effort="fast")
    after = record_of(other.to_bytes())
    assert {key for key in before if before[key] != after[key]} == {"model"}


def test_it_is_short_and_the_ledger_names_it(quantized, tmp_path):
    path = quantized.save(tmp_path / "q.onnx")
    proto = onnx.load(path)
    ledger = read_ledger(path)
    record = next(entry for entry in proto.metadata_props if entry.key == RECORD_KEY)
    assert len(record.value) < 256
    assert ledger.bytes["metadata"] == sum(entry.ByteSize() for entry in proto.metadata_props) + sum(
        1 + (1 if entry.ByteSize() < 128 else 2) for entry in proto.metadata_props
    )
    assert sum(ledger.bytes.values()) == path.stat().st_size


def test_the_blas_kernel_is_told():
    """The one that codes may differ by: numpy's, whatever else is loaded."""
    if platform.machine() not in ("x86_64", "AMD64") or kernels().count(" ") < 2:
        pytest.skip("another processor, or another BLAS than OpenBLAS")
    line = "import numpy; from lowbit.processor import kernels; print(kernels())"
    environment = os.environ | {"OPENBLAS_CORETYPE": "Nehalem"}
    done = subprocess.run([sys.executable, "-c", line], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "Nehalem"
    assert done.stdout.split()[:-1] == kernels().split()[:-1]

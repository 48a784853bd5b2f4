"""What integers will bring, timed on the file that a plan leads to before anything is quantized."""

import dataclasses

import numpy as np
import pytest

import lowbit
import networks
from graphs import make, make_node
from lowbit.engines import installed_engines
from lowbit.measurement import forecast as module
from lowbit.measurement.forecast import forecast, rehearse
from lowbit.measurement.peaks import FLOAT, INTEGER, Peaks, Rates
from lowbit.measurement.roofline import Rehearsal, outlook

RATES = {kind: Rates(rate, rate, rate, rate, 1e-7) for kind, rate in ((FLOAT, 4e-11), (INTEGER, 1e-11))}


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "litert"])
def test_both_files_are_made_and_timed(model, engine):
    if engine not in installed_engines():
        pytest.skip(f"{engine} is not installed")
    found = rehearse(model, lowbit.plan(model, "int8"), engine=engine, threads=1, batch=2)
    assert found is not None
    assert module.FEWEST_RUNS <= found.runs <= module.MOST_RUNS
    assert 0 < found.float_seconds < 1
    assert 0.01 < found.gain < 100


def test_networks_with_several_inputs_and_open_sizes_are_timed():
    weight = np.ones((4, 3, 3, 3), np.float32)
    nodes = [make_node("Conv", "x w", "a", pads=[1] * 4), make_node("Mul", "a s", "y")]
    inputs = {"x": ["n", 3, "h", "w"], "s": ["n", 1, 1, 1]}
    model = lowbit.load(make(nodes, inputs, ["y"], {"w": weight}))
    assert rehearse(model, lowbit.plan(model, "int8"), engine="onnxruntime", threads=1, batch=1) is not None


def test_layers_add_up_to_what_was_measured(model):
    peaks = Peaks(RATES, 1e10, 1, "onnxruntime")
    rehearsal = Rehearsal(gain=1.7, float_seconds=0.003, runs=9)
    plans = {"all": lowbit.plan(model, "int8"), "some": lowbit.plan(model, "int8", rules=["first=float"])}
    for decision in plans.values():
        found = outlook(model, peaks, recipe=decision, rehearsal=rehearsal)
        assert sum(layer.float_us for layer in found.layers) == pytest.approx(3000)
        assert found.gain == pytest.approx(1.7)
        assert "1.7 times as fast" in found.verdict
    kept = outlook(model, peaks, recipe=plans["some"], rehearsal=rehearsal).layers[0]
    assert (kept.arithmetic, kept.gain) == (FLOAT, pytest.approx(1))
    slow = outlook(model, peaks, recipe=plans["some"], rehearsal=dataclasses.replace(rehearsal, gain=40.0))
    assert slow.gain == pytest.approx(40), "layers that stay float cannot take longer than the whole network did"


def test_a_forecast_is_the_rehearsal(model, monkeypatch):
    monkeypatch.setattr(module, "measure_peaks", lambda **_: Peaks(RATES, 1e10, 1, "onnxruntime"))
    found = forecast(model)
    assert found.rehearsal is not None
    assert found.gain == pytest.approx(found.rehearsal.gain)
    assert found.to_json()["rehearsal"]["runs"] == found.rehearsal.runs


def test_without_integers_nothing_is_timed(model):
    assert rehearse(model, lowbit.plan(model, "linear8"), engine="onnxruntime", threads=1, batch=1) is None

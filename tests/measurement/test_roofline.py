"""The roofline by hand, on made-up processors; and that real ones can be measured."""

import dataclasses
import io
import json

import numpy as np
import pytest

import lowbit
import networks
from lowbit.engines import installed_engines, open_session
from lowbit.engines.litert_reader import read_litert
from lowbit.errors import EngineError
from lowbit.graph.cost import cost
from lowbit.measurement.microkernels import KERNELS, Kernel, kernel
from lowbit.measurement.peaks import FLOAT, INTEGER, Peaks, Rates, measure_peaks, rates_of
from lowbit.measurement.roofline import expected, moved_bytes, outlook
from lowbit.reports.console import Console
from lowbit.reports.speed import print_outlook

SLOW = Rates(mac=4e-9, window_mac=5e-9, depthwise_mac=8e-9, output=1e-9, start=1e-6)
FAST = Rates(mac=1e-9, window_mac=1.25e-9, depthwise_mac=8e-9, output=1e-9, start=1e-6)


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


def peaks(floats=SLOW, integers=FAST, bandwidth=1e15):
    return Peaks({FLOAT: floats, INTEGER: integers}, bandwidth, 1, "onnxruntime")


def test_one_layer_by_hand(model):
    """`wide` is 1x1 from 8 to 24 channels on 8x8: 12288 products, 1536 results."""
    layer = next(layer for layer in cost(model).layers if layer.node == "wide")
    assert (layer.macs, moved_bytes(layer, INTEGER)) == (12288, 8 * 64 + 24 * 64 + 8 * 24)
    assert moved_bytes(layer, FLOAT) == 4 * moved_bytes(layer, INTEGER)
    seconds, limit = expected(layer, peaks(), FLOAT)
    assert seconds == pytest.approx(1e-6 + 12288 * 4e-9 + 1536 * 1e-9)
    assert limit == "arithmetic"
    seconds, limit = expected(layer, peaks(bandwidth=1e6), INTEGER)
    assert seconds == pytest.approx(1e-6 + moved_bytes(layer, INTEGER) / 1e6)
    assert limit == "memory"
    assert expected(layer, peaks(integers=dataclasses.replace(FAST, output=1e-6)), INTEGER)[1] == "outputs"
    assert expected(layer, peaks(integers=dataclasses.replace(FAST, start=1.0)), INTEGER)[1] == "start"


def test_depthwise_and_windows_have_rates_of_their_own(model):
    layers = {layer.node: layer for layer in cost(model).layers}
    deep, stem = layers["deep"], layers["stem"]
    assert expected(deep, peaks(), INTEGER)[0] == pytest.approx(1e-6 + deep.macs * 8e-9)
    assert expected(stem, peaks(), FLOAT)[0] == pytest.approx(1e-6 + stem.macs * 5e-9 + 12 * 64 * 1e-9)


def test_rates_are_found_again():
    """Times made from known rates lead back to them."""
    kernels = {name: kernel(name) for name in KERNELS}

    def seconds(name: str, item: Kernel) -> float:
        rate = {"depthwise": FAST.depthwise_mac, "window": FAST.window_mac}.get(name, FAST.mac)
        work = 0.0 if name == "tiny" else item.macs * rate + (0 if name == "depthwise" else item.outputs * FAST.output)
        return item.nodes * FAST.start + work

    found = rates_of(kernels, {name: seconds(name, item) for name, item in kernels.items()})
    np.testing.assert_allclose(dataclasses.astuple(found), dataclasses.astuple(FAST), rtol=1e-9)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_run_in_the_arithmetic_that_they_stand_for(name, tmp_path):
    import onnx

    item = kernel(name)
    for content, wanted in ((item.floats, "Conv"), (item.integers, "QLinearConv")):
        open_session(content, threads=1, optimized_to=tmp_path / "optimized.onnx")
        kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
        assert kinds.count(wanted) == item.nodes, kinds


def test_verdicts(model):
    found = outlook(model, peaks())
    assert 2 < found.gain < 4  # depthwise products and results take as long as before
    better = found.verdict
    assert better.startswith(f"int8 should run about {found.gain:.1f} times as fast as float here")
    assert "Integer MACs run 4.0x faster than float" in better
    same = outlook(model, peaks(integers=SLOW))
    assert same.gain == pytest.approx(1.0)
    assert same.verdict.startswith("int8 will not be faster here (with 1 thread of onnxruntime), because ")
    tiny = outlook(model, peaks(*(dataclasses.replace(rates, start=1.0) for rates in (SLOW, FAST))))
    assert "the layers are tiny" in tiny.verdict


def test_layers_that_stay_float_are_named():
    proto = networks.residual_network()
    for node in proto.graph.node:
        if node.op_type == "Conv":
            node.op_type = "ConvTranspose" if node.name == "last" else "Conv"
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "last.weight")
    weight.dims[:] = [8, 32, 1, 1]
    slow = outlook(lowbit.load(proto), peaks())
    layer = next(layer for layer in slow.layers if layer.node == "last")
    assert (layer.arithmetic, layer.gain) == (FLOAT, 1.0)
    assert layer.reason
    assert "ONNX Runtime has no integer kernel" in layer.reason
    fast = outlook(lowbit.load(proto), dataclasses.replace(peaks(), engine="litert"))
    layer = next(layer for layer in fast.layers if layer.node == "last")
    assert (layer.arithmetic, layer.reason) == (INTEGER, "")
    assert layer.gain > 1


def test_report_and_json(model):
    found = outlook(model, peaks(), batch=2)
    file = io.StringIO()
    print_outlook(found, console=Console(file=file, width=160))
    text = file.getvalue()
    assert all(layer.node in text for layer in found.layers)
    assert found.verdict[:60] in text
    data = json.loads(json.dumps(found.to_json()))
    assert data["batch"] == 2
    assert data["gain"] == pytest.approx(found.gain)
    assert data["faster"]
    assert data["layers"][0]["gain"] == pytest.approx(found.layers[0].gain)
    assert data["layers"][0]["limit"] in ("arithmetic", "outputs", "memory", "start")


@pytest.mark.parametrize("name", KERNELS)
def test_litert_kernels_are_one_part_run_by_xnnpack(name, tmp_path):
    pytest.importorskip("ai_edge_litert")
    item = kernel(name, to="litert")
    for content, wanted in ((item.floats, "float32"), (item.integers, "int8")):
        open_session(content, engine="litert", threads=1, optimized_to=tmp_path / "ran.txt")
        assert (tmp_path / "ran.txt").read_text() == "DELEGATE\n"
        graph = read_litert(content, name).graphs[0]
        kinds = [graph.tensors[op.inputs[0]].dtype for op in graph.operators if op.code in (3, 4)]
        assert kinds == [wanted] * item.nodes


def test_engines_that_there_are_not_are_refused():
    with pytest.raises(EngineError, match="no engine is called 'none'"):
        measure_peaks(engine="none")


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_this_processor_can_be_measured(model, engine):
    if engine not in installed_engines():
        pytest.skip(f"{engine} is not installed")
    found = measure_peaks(engine=engine, threads=1)
    assert found.engine == engine
    assert set(found.rates) == {FLOAT, INTEGER}
    for rates in found.rates.values():
        assert all(value >= 0 for value in dataclasses.astuple(rates))
        assert 0 < rates.mac <= rates.window_mac
    assert found.bandwidth > 1e8
    assert outlook(model, found).gain > 0

"""Every recipe on networks with several inputs, integer inputs, or no batch dimension, and their files."""

import numpy as np
import pytest

import lowbit
import many_inputs
from graphs import make, make_node, relative_error
from lowbit.calibration.batches import as_runs, samples_per_run
from lowbit.data.opening import open_data
from lowbit.engines import fed, installed_engines, open_session
from lowbit.errors import DataError

LEAST_DB = {"int8": 25, "linear8": 35, "linear4": 12, "cluster4": 12}


def quality(model, file, data, engine="onnxruntime"):
    """Output SQNR in dB of a file over the samples of a data set."""
    reference, session = open_session(model.to_bytes(), threads=1), open_session(file, engine=engine, threads=1)
    error = power = 0.0
    for batch in data.batches(samples_per_run(model, data) or 4):
        wanted = reference.run(batch.inputs)[reference.output_names[0]]
        given = session.run(fed(session, batch.inputs))[session.output_names[0]]
        error += float(np.square(wanted - given).sum())
        power += float(np.square(wanted).sum())
    return 10 * np.log10(power / max(error, 1e-30))


@pytest.mark.parametrize("recipe", LEAST_DB)
@pytest.mark.parametrize("name", many_inputs.CASES)
def test_files_answer_as_the_float_model_does(name, recipe, tmp_path):
    case = many_inputs.CASES[name]()
    model = lowbit.load(case.model)
    quantized = lowbit.quantize(model, recipe, calibration=case.samples(60), effort="fast")
    data = as_runs(model, open_data(case.samples(12, seed=9), model))
    for engine in set(installed_engines()) - {"litert"}:
        path = quantized.save(tmp_path / f"{engine}.onnx", to="openvino" if engine == "openvino" else None)
        assert quality(model, path, data, engine) > LEAST_DB[recipe], engine


def test_measuring_takes_several_inputs(tmp_path):
    case = many_inputs.two_images()
    model = lowbit.load(case.model)
    files = [
        lowbit.quantize(model, recipe, calibration=case.samples(40), steps=()).save(tmp_path / f"{recipe}.onnx")
        for recipe in ("float", "int8")
    ]
    data = {**case.samples(12, seed=9), "labels": np.arange(12) % 5}
    rows = lowbit.measure(files, open_data(data, model), runs=2).rows
    assert len(rows) == 2
    assert rows[1].kl < 0.1
    assert all(row.latency_ms > 0 and row.peak_memory_bytes > 0 for row in rows)


@pytest.mark.usefixtures("quick_measuring")
@pytest.mark.parametrize("first", [1, 4])
def test_measuring_fills_fixed_batches(first, tmp_path):
    rows = []
    for batch in (first, "n"):
        case = many_inputs.two_images(batch)
        model = lowbit.load(case.model)
        file = lowbit.quantize(model, "float").save(tmp_path / f"{batch}.onnx")
        data = open_data({**case.samples(10, seed=9), "labels": np.arange(10) % 5}, model)
        rows += lowbit.measure([file], data, runs=0).rows
    fixed, free = rows
    assert fixed.accuracy == free.accuracy
    assert fixed.loss == pytest.approx(free.loss, rel=1e-5)


def test_a_batch_size_that_the_model_does_not_take_is_refused(tmp_path):
    case = many_inputs.two_images(4)
    model = lowbit.load(case.model)
    file = lowbit.quantize(model, "float").save(tmp_path / "float.onnx")
    with pytest.raises(DataError, match="takes 4 samples a run, not batches of 3"):
        lowbit.measure([file], open_data(case.samples(8), model), conditions=lowbit.Conditions(batch=3))


@pytest.mark.parametrize("recipe", ["int8", "linear4"])
def test_sums_with_what_is_the_same_for_all_samples(recipe, tmp_path):
    """A table of positions that passes a layer of its own has one row, which is added to those of all samples."""
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=(64, 64)).astype(np.float32) / 8 for name in ("w", "p", "q")}
    weights["table"] = generator.normal(size=(1, 8, 64)).astype(np.float32)
    nodes = [make_node("Shape", "x", "size"), make_node("ConstantOfShape", "size", "zeros")]
    nodes += [make_node("ReduceMax", "zeros", "zero", axes=[0], keepdims=1), make_node("Add", "zero table", "places")]
    nodes += [make_node("MatMul", "places p", "at"), make_node("MatMul", "x w", "h"), make_node("Add", "h at", "s")]
    nodes += [make_node("Tanh", "s", "t"), make_node("MatMul", "t q", "y")]
    proto = make(nodes, {"x": ["n", 8, 64]}, ["y"], weights)
    x = generator.normal(size=(24, 8, 64)).astype(np.float32)
    path = lowbit.quantize(proto, recipe, calibration={"x": x}).save(tmp_path / "q.onnx")
    exact, answer = (open_session(given, threads=1).run({"x": x})["y"] for given in (proto.SerializeToString(), path))
    assert relative_error(answer, exact) < {"int8": 0.03, "linear4": 0.15}[recipe]

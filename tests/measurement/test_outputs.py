"""Every output is kept and compared: any number, type and shape, in memory or not."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import lowbit
import many_inputs
from comparison_sample import comparison_text, sample_comparison
from graphs import make, make_node
from lowbit.measurement import prediction
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.details import OutputRow
from lowbit.measurement.outputs import least_agreement, output_rows, worst
from lowbit.measurement.prediction import Answers, Runs, predict
from lowbit.measurement.results import Metric
from lowbit.measurement.results_file import parse_results
from lowbit.reports.files import results_json
from lowbit.reports.page import page

pytestmark = pytest.mark.usefixtures("quick_measuring")

PLAIN = Conditions(runs=0, with_memory=False)
RNG = np.random.default_rng(0)


def test_distances_by_hand():
    wanted = np.array([[1.0, 100], [3, 104], [5, 108]])
    given = wanted + np.array([[0.5, 1], [0, 0], [0, -1]])
    (row,), notes = output_rows({"y": given.astype(np.float32)}, {"y": wanted.astype(np.float32)})
    assert notes == ()
    power, error = (wanted**2).sum(), 0.25 + 1 + 1
    assert row.sqnr_db == pytest.approx(10 * np.log10(power / error))
    # variances 8/3 and 32/3, mean squared errors 0.25/3 and 2/3
    assert row.relative_error == pytest.approx((0.25 / 8 + 2 / 32) / 2)
    assert (row.type, row.shape, row.agreement, row.differing) == ("float32", "2", None, 0)


@pytest.mark.parametrize("shape", [(), (4,), (4, 5, 6)])
def test_relative_errors_are_those_that_steps_are_judged_by(shape):
    from lowbit.calibration.answers import relative_errors

    wanted = RNG.normal(3, 2, (10, *shape)).astype(np.float32)
    given = wanted + RNG.normal(0, 0.1, wanted.shape).astype(np.float32)
    expected = relative_errors({"y": wanted}, {"y": given}).mean()
    for as_kept in (np.asarray, list):
        (row,), _ = output_rows({"y": as_kept(given)}, {"y": as_kept(wanted)})
        assert row.relative_error == pytest.approx(expected, rel=1e-5)


def test_the_worst_output_is_the_one_that_varies_least_for_its_error():
    """A score that is wrong by as much as it varies is worse than boxes in pixels that are off by one."""
    boxes, scores = RNG.uniform(0, 600, (50, 4)), RNG.random((50, 1)) / 10
    reference = {"boxes": boxes.astype(np.float32), "scores": scores.astype(np.float32)}
    given = {"boxes": (boxes + 1).astype(np.float32), "scores": np.zeros((50, 1), np.float32)}
    rows, _ = output_rows(given, reference)
    assert worst(rows).name == "scores"
    assert worst(rows).relative_error == 1


@pytest.mark.parametrize("turned", [False, True])
def test_scores_beside_boxes_in_one_output_are_not_hidden_by_them(turned):
    """As the head of a detector gives them, [4 + classes, places] or turned, with every score lost."""
    head = np.concatenate([RNG.uniform(0, 600, (9, 4, 50)), RNG.random((9, 6, 50)) / 10], axis=1).astype(np.float32)
    lost = head * (np.arange(10) < 4)[:, None].astype(np.float32)
    if turned:
        head, lost = head.swapaxes(1, 2), lost.swapaxes(1, 2)
    (row,), _ = output_rows({"y": lost}, {"y": head})
    assert row.relative_error == pytest.approx(0.6)  # 6 of 10 channels say nothing
    assert row.sqnr_db > 60  # by power alone nothing would seem to be lost


def test_integers_agree_or_not():
    rows, _ = output_rows(
        {"ids": np.array([[1, 2], [3, 5]]), "kept": np.array([True, False])},
        {"ids": np.array([[1, 2], [3, 4]]), "kept": np.array([True, False])},
    )
    assert [row.agreement for row in rows] == [0.75, 1.0]
    assert least_agreement(rows) == 0.75
    assert worst(rows) is None


def test_exact_and_missing_and_new_outputs():
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    rows, notes = output_rows({"y": x, "new": x}, {"y": x, "old": x})
    assert (rows[0].sqnr_db, rows[0].relative_error) == (None, 0.0)
    assert rows[1].relative_error is None
    assert notes == (
        "Output 'new' is not one of float's, and was not compared.",
        "Output 'old' of the float model is missing.",
    )
    rows, notes = output_rows({"y": x}, None)
    assert (rows, notes) == ((OutputRow("y", "float32", "3"),), ())


def test_selections_of_other_lengths_are_counted():
    boxes = [RNG.normal(size=(n, 4)).astype(np.float32) for n in (2, 3, 0, 5)]
    others = [boxes[0], boxes[1][:2], boxes[2], boxes[3] + np.float32(0.1)]
    (row, ids), notes = output_rows(
        {"boxes": others, "ids": [np.zeros(n, int) for n in (2, 2, 0, 5)]},
        {"boxes": boxes, "ids": [np.zeros(n, int) for n in (2, 3, 0, 5)]},
    )
    assert (row.shape, row.differing) == ("?×4", 1)
    assert row.relative_error > 0
    assert ids.agreement == pytest.approx(7 / 10)
    assert notes[0] == "Output 'boxes' has other shapes than float's for 1 of 4 samples."


def test_answers_that_are_no_numbers():
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    masked, broken = x.copy(), x.copy()
    masked[:, 0] = -np.inf
    broken[1, 2] = np.nan
    (same,), notes = output_rows({"y": masked}, {"y": masked})
    assert (same.relative_error, notes) == (0.0, ())
    rows, notes = output_rows({"y": broken}, {"y": x})
    assert (rows[0].sqnr_db, rows[0].relative_error, worst(rows)) == (None, None, None)
    assert notes == ("Output 'y' is not finite where float's is for 1 of 4 samples.",)


def several_outputs() -> onnx.ModelProto:
    """Maps, a number for each image, integers, and a number for the whole run."""
    nodes = [
        make_node("Conv", "x w", "maps"),
        make_node("ReduceMean", "maps", "number", axes=[1, 2, 3], keepdims=0),
        make_node("ArgMax", "maps", "classes", axis=1, keepdims=0),
    ]
    shapes = {"maps": ["n", 5, 6, 6], "number": ["n"], "classes": ["n", 6, 6]}
    weights = {"w": RNG.normal(size=(5, 3, 3, 3))}
    return make(nodes, {"x": ["n", 3, 8, 8]}, shapes, weights, types={"classes": TensorProto.INT64})


def test_every_output_of_a_file_is_in_the_report(tmp_path):
    onnx.save(several_outputs(), tmp_path / "net.onnx")
    x = RNG.normal(size=(20, 3, 8, 8)).astype(np.float32)
    options = lowbit.CompareOptions(effort="fast", same_data=True)
    found = lowbit.compare(tmp_path / "net.onnx", x, calibration=x, recipes=("int8", "linear2"), folder=tmp_path / "o",
                           options=options, conditions=PLAIN)  # fmt: skip
    assert found.task == "distance"
    for row in found.rows[1:]:
        assert [output.name for output in row.details.outputs] == ["maps", "number", "classes"]
        assert row.output_agreement == row.details.outputs[2].agreement < 1
        assert row.output_error == max(output.relative_error for output in row.details.outputs[:2])
    assert found.rows[1].output_error < found.rows[2].output_error
    assert parse_results(results_json(found)) == found
    html = page(found)
    assert all(f'<td class="text">{name}</td>' in html for name in ("maps", "number", "classes"))
    assert "variance over error of the farthest output against size" in html
    text = comparison_text(found, width=200)
    assert "output SQNR" in text.splitlines()[0]
    assert "Task: distance, on 20 samples" in text


@pytest.mark.parametrize("name", many_inputs.CASES)
def test_any_network_is_measured(name, tmp_path):
    case = many_inputs.CASES[name]()
    onnx.save(case.model, tmp_path / "net.onnx")
    model = lowbit.load(tmp_path / "net.onnx")
    files = [tmp_path / "net.onnx", tmp_path / "linear8.onnx"]
    lowbit.quantize(model, "linear8").save(files[1])
    found = lowbit.measure(files, lowbit.open_data(case.samples(9), model), conditions=PLAIN)
    (output,) = found.rows[1].details.outputs
    assert 0 <= output.relative_error < 0.01
    assert output.differing == 0


def test_sequences_of_different_lengths(tmp_path):
    case = many_inputs.no_batch()
    onnx.save(case.model, tmp_path / "net.onnx")
    data = [RNG.normal(size=(length, 6)).astype(np.float32) for length in (5, 9, 7, 9)]
    model = lowbit.load(tmp_path / "net.onnx")
    lowbit.quantize(model, "linear4").save(tmp_path / "l.onnx")
    files = [tmp_path / "net.onnx", tmp_path / "l.onnx"]
    found = lowbit.measure(files, lowbit.open_data(data, model), conditions=PLAIN)
    (output,) = found.rows[1].details.outputs
    assert output.shape == "?×3"
    assert 0 < output.relative_error < 0.1


def test_outputs_of_a_file_for_another_engine_go_by_their_order():
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    reference, other = Answers({"a": x, "b": x + 1}), Answers({"out0": x, "out1": x + 1})
    assert list(other.named_as(reference).outputs) == ["a", "b"]
    assert other.named_as(Answers({"a": x})) is other


@pytest.mark.parametrize("rows", ["each", "one run"])
def test_large_outputs_wait_in_a_file(tmp_path, monkeypatch, rows):
    model = several_outputs()
    x = RNG.normal(size=(11, 3, 8, 8)).astype(np.float32)
    data = lowbit.open_data(x, lowbit.load(model))
    runs = Runs(4) if rows == "each" else Runs(1, exactly=True)
    in_memory = predict(model.SerializeToString(), data, runs=runs)
    monkeypatch.setattr(prediction, "MEMORY_BYTES", 2000)
    spilled = predict(model.SerializeToString(), data, runs=runs)
    assert isinstance(spilled.outputs["maps"].base, np.memmap | np.ndarray)
    for name, answer in in_memory.outputs.items():
        np.testing.assert_array_equal(spilled.outputs[name], answer)
        assert spilled.outputs[name].dtype == answer.dtype
    assert output_rows(spilled.outputs, in_memory.outputs)[0][0].relative_error == 0


def test_large_selections_wait_in_a_file_too(monkeypatch):
    nodes = [
        make_node("MatMul", "x w", "y"),
        make_node("Greater", "y zero", "positive"),
        make_node("NonZero", "positive", "places"),
    ]
    weights = {"w": RNG.normal(size=(6, 40)), "zero": np.float32(0)}
    types = {"places": TensorProto.INT64}
    model = make(nodes, {"x": [1, 6]}, {"places": [2, None], "y": [1, 40]}, weights, types=types)
    x = RNG.normal(size=(9, 6)).astype(np.float32)
    data = lowbit.open_data({"x": x}, lowbit.load(model))
    in_memory = predict(model.SerializeToString(), data, runs=Runs(1, exactly=True))
    assert isinstance(in_memory.outputs["places"], list)
    monkeypatch.setattr(prediction, "MEMORY_BYTES", 500)
    spilled = predict(model.SerializeToString(), data, runs=Runs(1, exactly=True))
    for found, wanted in zip(spilled.outputs["places"], in_memory.outputs["places"], strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_results_files_without_tasks_and_outputs_are_read():
    """A results.json of before: none of the fields that came with tasks."""
    sample = sample_comparison()
    data = sample.to_data()
    for key in ("task", "metrics"):
        del data[key]
    for row in data["rows"]:
        for key in ("scores", "output_sqnr_db", "output_error", "output_agreement", "worst_output"):
            del row[key]
        del row["details"]["outputs"]
    from lowbit.measurement.results import as_text

    assert parse_results(as_text(data)) == sample
    assert page(parse_results(as_text(data))) == page(sample)


def test_a_metric_where_smaller_is_better_is_drawn_upside_down():
    sample = sample_comparison()
    bare = {"accuracy": None, "accuracy_low": None, "accuracy_high": None, "agreement": None, "kl": None, "flips": None}
    rows = tuple(
        dataclasses.replace(row, **bare, mcnemar_p=None, loss=None, scores={"error": value})
        for row, value in zip(sample.rows, (2.0, 2.1, 2.0, 2.05, 2.2, 2.1, 2.2, 9.0), strict=True)
    )
    metric = Metric("error", "word errors", "", -1, "Errors")
    found = dataclasses.replace(sample, rows=rows, task="speech", metrics=(metric,))
    html = page(found)
    assert "word errors against size" in html
    assert "cluster2 9.000" in html  # far from the others, it stands at the edge with its value
    text = comparison_text(found, width=120)
    assert text.splitlines()[0].split()[0] == "word"
    assert "word errors (lower is better)" in text

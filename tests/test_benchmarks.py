"""The benchmarks' CSV files, tables and plots: nothing of a row is lost on its way into a README."""

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from PIL import Image

import lowbit
from lowbit.graph.cost import cost
from lowbit.graph.preprocessing import Preprocessing

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def accuracy(import_benchmark) -> ModuleType:
    return import_benchmark("accuracy")


@pytest.fixture
def rows(accuracy):
    base = accuracy.Row("resnet20", "float", "float32", 32.0, 1_089_000, 81.0, 0.0, 0.0, 0, 0.75, 1.0, None, "3 images")
    better = dataclasses.replace(
        base, tool="lowbit", recipe="linear4", bits_per_weight=4.125, file_bytes=161_499, kl=0.0123, loss_ratio=1.01
    )
    worse = dataclasses.replace(better, tool="NNCF", recipe="int8 default, OpenVINO", drop_points=-0.04, kl=2.5e-6)
    missing = accuracy.Row("resnet20", "AIMET", "AdaRound", note="not run: no, | not here")
    other = dataclasses.replace(base, model="rps128", note="")
    return [base, better, worse, missing, other]


def test_rows_come_back_as_they_were_written(accuracy, rows, tmp_path):
    path = tmp_path / "deeper" / "rows.csv"
    assert accuracy.RESULTS.read(path) == []
    accuracy.RESULTS.add(rows, path)
    assert accuracy.RESULTS.read(path) == rows
    assert [file.name for file in path.parent.iterdir()] == ["rows.csv"]


def test_a_row_replaces_itself_and_finds_its_place(accuracy, rows):
    base, better, worse, missing, other = rows
    shuffled = []
    for row in (missing, other, worse, better, base):
        shuffled = accuracy.RESULTS.merged(shuffled, [row])
    assert shuffled == rows
    again = dataclasses.replace(better, kl=0.01)
    assert accuracy.RESULTS.merged(rows, [again]) == [base, again, worse, missing, other]


def test_the_table_has_every_row_and_every_losing_one(accuracy, rows):
    table = accuracy.markdown(rows)
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert len([line for line in lines if not line.startswith("| tool")]) == len(rows)
    assert "| lowbit | linear4 | 4.12 | 161 | 81.00 | +0.00 | 0.012 | 0 | x 1.010 |  |" in lines
    assert "| -0.04 | 2.5e-06 |" in table
    repeated = dataclasses.replace(rows[2], note="measured in OpenVINO; same answers as 'int8'")
    assert "| int8 default, OpenVINO (same answers as 'int8') |" in accuracy.markdown([repeated])
    assert "not run: no, \\| not here" in table
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "rps128" not in accuracy.markdown(rows, model="resnet20")


def test_only_what_stands_between_the_markers_changes(accuracy, rows):
    text = (
        "before\n<!-- accuracy table -->\nold\n<!-- end accuracy table -->\nbetween\n"
        "<!-- accuracy table: rps128 -->\n<!-- end accuracy table -->\nafter\n"
    )

    def filled(text):
        return accuracy.RESULTS.filled(text, lambda model: accuracy.markdown(rows, model=model))

    once = filled(text)
    assert filled(once) == once
    assert "old" not in once
    first, second = once.split("between\n")
    assert first == (f"before\n<!-- accuracy table -->\n\n{accuracy.markdown(rows)}\n<!-- end accuracy table -->\n")
    assert "**rps128**" in second
    assert "**resnet20**" not in second
    assert second.endswith("after\n")


BENCHMARKS = (
    "latency",
    "latency_all",
    "trade_off",
    "job",
    "scale",
    "coding",
    "micro",
    "ablation",
    "accuracy_seeds",
    "certainty",
    "doctor",
    "search",
)


@pytest.fixture
def benchmark(request, import_benchmark) -> ModuleType:
    return import_benchmark(request.param)


def example(module, **values):
    """A row with a value of its own in every column."""
    numbers = iter(range(2, 100))
    given = {
        field.name: values.get(field.name, field.name if "str" in str(field.type) else next(numbers))
        for field in dataclasses.fields(module.Row)
    }
    return module.Row(**given)


@pytest.mark.parametrize("benchmark", BENCHMARKS, indirect=True)
def test_measured_rows_replace_themselves_and_come_back(benchmark, tmp_path):
    results = benchmark.RESULTS
    name = dataclasses.fields(benchmark.Row)[0].name
    first, second = example(benchmark), example(benchmark, **{name: "another"})
    path = tmp_path / "deeper" / "rows.csv"
    assert results.read(path) == []
    results.add([first, second], path)
    again = dataclasses.replace(first, cpu="newer", note="")
    assert results.add([again], path) == [again, second]
    assert results.read(path) == [again, second]


@pytest.mark.parametrize("benchmark", BENCHMARKS, indirect=True)
def test_rows_that_failed_are_in_the_table_with_their_reason(benchmark):
    failed = dataclasses.replace(
        example(benchmark, note="not run: no | such thing"),
        **{field.name: None for field in dataclasses.fields(benchmark.Row) if "None" in str(field.type)},
    )
    table = benchmark.markdown([example(benchmark), failed])
    assert "not run: no \\| such thing" in table
    lines = [line.replace("\\|", "") for line in table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("benchmark", [*BENCHMARKS, "accuracy"], indirect=True)
@pytest.mark.parametrize("readme", ["README.md", "benchmarks/README.md"])
def test_generated_tables_are_those_of_their_csv(benchmark, readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    measured = benchmark.RESULTS.read()
    name = benchmark.__name__
    assert f"<!-- {name} table" in text or readme == "README.md", "every CSV has a table"
    filled = benchmark.RESULTS.filled(text, lambda model: benchmark.markdown(measured, model))
    assert filled == text, f"run python benchmarks/{name}.py --table"


@pytest.mark.parametrize("benchmark", ["accuracy_seeds"], indirect=True)
def test_a_line_is_the_mean_of_its_seeds_with_their_spread(benchmark):
    values = {"tool": "lowbit", "recipe": "int8", "effort": "fast", "f1": None, "f1_calibration": None, "note": ""}
    first = example(benchmark, **values, kl=0.02, kl_calibration=0.01, lost_points=0.25)
    second = dataclasses.replace(first, seed=9, kl=0.04, kl_calibration=0.02, lost_points=-0.75)
    failed = dataclasses.replace(first, seed=10, kl=None, note="failed: no")
    lines = benchmark.markdown([first, second, failed]).splitlines()
    assert lines[-1].startswith("| lowbit | int8 (failed: no) | fast | 2 | 0.030 | 0.020 | 0.015 | -0.25 | 1.00 |")
    found = dataclasses.replace(first, model="fastestdet", kl=None, f1=0.9, f1_calibration=0.95)
    assert "| lowbit | int8 | fast | 1 | 0.9000 |  | 0.9500 |" in benchmark.markdown([first, found])


def test_cells_found_by_both_with_the_same_class_count(import_benchmark):
    detections = import_benchmark("detections")
    reference = np.zeros((1, 85, 3), np.float32)
    reference[:, 0, :2], reference[:, 5, :2] = 0.9, 0.8
    other = reference.copy()
    other[:, 6, 1] = 0.9
    flat, changed = reference.reshape(1, -1), other.reshape(1, -1)
    assert detections.found(flat)[0].tolist() == [[True, True, False]]
    assert (detections.f1(flat, flat), detections.f1(flat, changed)) == (1.0, 0.5)
    assert detections.f1(0 * flat, 0 * flat) == 1.0


def test_images_of_a_table_are_scaled_and_keep_their_labels(import_benchmark, tmp_path):
    subjects = import_benchmark("subjects")
    Image.new("RGB", (20, 10), (255, 0, 51)).save(tmp_path / "a.png")
    (tmp_path / "images.csv").write_text("image,label\na.png,7\n")
    prepared = subjects.Prepared("", "", "", Preprocessing(4, 6), bgr=True)
    (batch,) = subjects.open_prepared(tmp_path / "images.csv", prepared).batches()
    assert batch.labels.tolist() == [7]
    assert batch.x.shape == (1, 3, 4, 6)
    np.testing.assert_allclose(batch.x[0, :, 0, 0], [0.2, 0, 1], atol=1e-6)


def test_networks_that_are_not_there_are_skipped_with_a_sentence(import_benchmark, tmp_path):
    subjects = import_benchmark("subjects")
    sentences = [subjects.missing(name, tmp_path) for name in subjects.NETWORKS if name != subjects.BUILT_IN]
    assert all("is skipped" in sentence for sentence in sentences)
    assert subjects.missing(subjects.BUILT_IN, tmp_path) is None


@pytest.mark.parametrize("benchmark", ["latency"], indirect=True)
def test_ratios_are_taken_within_rounds(benchmark):
    """A machine that is ten times slower in every other round changes no ratio; first calls have their own."""
    row = example(benchmark, engine="onnxruntime", note="")
    tools = ("float", "lowbit int8", "peer a", "peer b", benchmark.NORMALIZED, benchmark.BYTES, "failed")
    base = [dataclasses.replace(row, tool=tool) for tool in tools]
    wall = np.array([[8.0, 2.0, 5.0, 4.0, 3.0, 1.0, np.nan]]) * np.array([[1e6], [1e7]] * 10)
    cold = np.where(np.array([tool == "lowbit int8" for tool in tools]), 5 * wall, 2 * wall)
    rows = {row.tool: row for row in benchmark.summarized(base, cold, wall, 0.5)}
    assert rows["lowbit int8"].faster_than_float == 4.0
    assert (rows["lowbit int8"].of_best_peer, rows["lowbit int8"].best_peer) == (0.5, "peer b")
    assert rows["lowbit int8"].cold_of_best_peer == 1.25
    assert rows[benchmark.BYTES].faster_than_normalized == 3.0
    assert rows["peer a"].of_best_peer is None
    assert rows["failed"] == base[-1]


@pytest.mark.parametrize("benchmark", ["latency"], indirect=True)
def test_plots_in_the_repository_are_those_of_the_csv(benchmark):
    rows = benchmark.RESULTS.read()
    for name in dict.fromkeys(row.model for row in rows):
        drawn = benchmark.RESULTS.csv.with_name(f"latency-{name}.svg").read_text(encoding="utf-8")
        assert drawn == benchmark.drawing(rows, name), "run python benchmarks/latency.py --table"


@pytest.mark.parametrize("benchmark", ["latency_all"], indirect=True)
def test_shares_above_the_wanted_one_are_bold(benchmark):
    given = {"model": "resnet20", "batch": 1, "threads": 1, "note": ""}
    ours = example(benchmark, **given, engine="onnxruntime", tool=benchmark.LOWBIT, faster_than_float=1.9)
    peer = dataclasses.replace(ours, tool="quantize_static", lowbit_of_it=0.98)
    other = dataclasses.replace(ours, engine="openvino", tool="NNCF", lowbit_of_it=0.9, note="")
    assert "| resnet20 | 1/1 |  | 1.90 | **0.98** |  | 0.90 |  |" in benchmark.markdown([ours, peer, other])


@pytest.mark.parametrize("benchmark", ["trade_off"], indirect=True)
def test_a_file_is_dominated_by_one_that_is_better_in_all(benchmark):
    row = example(benchmark, model="m", engine="e", tool="lowbit", recipe="a", dominated_by="", note="")
    small = dataclasses.replace(row, file_bytes=100, kl=0.01, time_of_float=0.5)
    rows = [
        small,
        dataclasses.replace(small, recipe="b", file_bytes=200),
        dataclasses.replace(small, recipe="c", file_bytes=300, kl=0.001),
    ]
    assert [row.dominated_by for row in benchmark.with_dominators(rows)] == ["", "lowbit a", ""]


def test_networks_of_the_scale_benchmark_are_as_large_as_they_claim(monkeypatch):
    """Small ones only: the others take seconds to fill with random weights."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    networks = importlib.import_module("scale_networks")
    proto = networks.mobilenet_v2()
    onnx.checker.check_model(proto, full_check=True)
    found = cost(lowbit.load(proto))
    assert (found.parameters, round(found.macs / 1e6)) == (3_487_816, 301)


def scripts() -> list[str]:
    return [path.stem for path in sorted((ROOT / "benchmarks").glob("*.py")) if "def main()" in path.read_text()]


@pytest.mark.parametrize("name", scripts())
def test_every_script_explains_its_options(name, import_benchmark, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        import_benchmark(name).main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "options:" in shown
    assert ("--data" in shown) == ("--models" in shown), "models are files in the data folder"

"""The accuracy benchmark's CSV and tables: nothing of a row is lost on its way into a README."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy_benchmark", ROOT / "benchmarks" / "accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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
    assert accuracy.read_rows(path) == []
    accuracy.write_rows(path, rows)
    assert accuracy.read_rows(path) == rows
    assert [file.name for file in path.parent.iterdir()] == ["rows.csv"]


def test_a_row_replaces_itself_and_finds_its_place(accuracy, rows):
    base, better, worse, missing, other = rows
    shuffled = []
    for row in (missing, other, worse, better, base):
        shuffled = accuracy.merged(shuffled, row)
    assert shuffled == rows
    again = dataclasses.replace(better, kl=0.01)
    assert accuracy.merged(rows, again) == [base, again, worse, missing, other]


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
    once = accuracy.filled(text, rows)
    assert accuracy.filled(once, rows) == once
    assert "old" not in once
    first, second = once.split("between\n")
    assert first == (f"before\n<!-- accuracy table -->\n\n{accuracy.markdown(rows)}\n<!-- end accuracy table -->\n")
    assert "**rps128**" in second
    assert "**resnet20**" not in second
    assert second.endswith("after\n")


@pytest.mark.parametrize("readme", ["README.md", "benchmarks/README.md"])
def test_tables_in_the_repository_are_those_of_the_csv(accuracy, readme):
    rows = accuracy.read_rows(accuracy.CSV)
    assert rows
    assert [path.relative_to(ROOT).as_posix() for path in accuracy.READMES] == ["README.md", "benchmarks/README.md"]
    text = (ROOT / readme).read_text(encoding="utf-8")
    if accuracy.filled(text, []) == accuracy.filled(text, rows) or "<!-- accuracy table -->\n<!-- end" in text:
        pytest.skip("no table has been put here yet")
    assert accuracy.filled(text, rows) == text, "run python benchmarks/accuracy.py --table"

"""The comparison as files."""

import csv
import dataclasses
import io
import re

import pytest

from comparison_sample import sample_comparison
from lowbit.errors import OutputError
from lowbit.measurement.results_file import read_results
from lowbit.reports.files import results_csv, write_reports


def test_three_files_and_nothing_else(tmp_path):
    comparison = sample_comparison()
    paths = write_reports(comparison, tmp_path / "out")
    assert sorted(path.name for path in paths) == ["report.html", "results.csv", "results.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)
    assert read_results(paths[0]) == comparison


def test_the_page_leads_to_the_files_that_lie_beside_it(tmp_path):
    comparison = sample_comparison()
    odd = dataclasses.replace(comparison.rows[1], recipe="odd", file="a b#'.onnx")
    outside = dataclasses.replace(comparison.rows[2], recipe="outside", file="../secret.onnx")
    (tmp_path / "secret.onnx").write_text("")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "float.onnx").write_text("")
    (folder / odd.file).write_text("")
    *_, path = write_reports(dataclasses.replace(comparison, rows=(*comparison.rows, odd, outside)), folder)
    links = re.findall(r'<a href="([^#"][^"]*)"', path.read_text())
    assert links == ["./float.onnx", "./a%20b%23%27.onnx", "results.json", "results.csv"]


def test_csv_holds_the_scalars_of_every_row():
    comparison = sample_comparison()
    lines = list(csv.DictReader(io.StringIO(results_csv(comparison))))
    assert [line["recipe"] for line in lines] == [row.recipe for row in comparison.rows]
    for line, row in zip(lines, comparison.rows, strict=True):
        for name, value in row.scalars().items():
            assert line[name] == ("" if value is None else str(value))


def test_csv_runs_no_formula():
    comparison = sample_comparison()
    row = dataclasses.replace(comparison.rows[0], recipe="=1+1")
    assert "\n'=1+1," in results_csv(dataclasses.replace(comparison, rows=(row,)))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_reports(sample_comparison(), tmp_path / "file")

"""A new column is one row: terminal, CSV, JSON and page show it, and nothing else changes."""

import csv
import io
import json

import pytest

from comparison_sample import comparison_text, sample_comparison
from lowbit.measurement.results_file import parse_results
from lowbit.reports import columns, units
from lowbit.reports.files import results_csv, results_json
from lowbit.reports.page import page

TOY = columns.Column(
    "bits_per_parameter", columns.SIZE, "bits/param", "bits", units.decimal, rank=0, best=-1,
    help="Bits of the whole file per parameter", value=lambda row: 8 * row.file_bytes / row.parameters,
)  # fmt: skip


@pytest.fixture
def comparison(monkeypatch):
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, TOY))
    return sample_comparison()


def numbers(comparison):
    return [8 * row.file_bytes / row.parameters for row in comparison.rows]


def test_the_terminal_shows_it_last(comparison):
    titles, units_line, *lines = comparison_text(comparison, width=80).splitlines()
    assert titles.endswith("bits/param")
    assert units_line.endswith("bits")
    for row, number in zip(comparison.rows, numbers(comparison), strict=True):
        assert any(line.startswith(f"{row.recipe} ") and line.endswith(f"{number:.2f}") for line in lines)


def test_csv_and_json_hold_it_under_its_name(comparison):
    expected = numbers(comparison)
    lines = list(csv.DictReader(io.StringIO(results_csv(comparison))))
    assert [float(line["bits_per_parameter"]) for line in lines] == expected
    text = results_json(comparison)
    assert [row["bits_per_parameter"] for row in json.loads(text)["rows"]] == expected
    assert parse_results(text) == comparison


def test_the_page_shows_it_with_its_help_and_marks_the_best(comparison):
    text = page(comparison)
    assert (
        '<button type="button" title="Bits of the whole file per parameter">bits/param<small>bits</small></button>'
        in text
    )
    smallest = min(numbers(comparison)[1:])
    assert f'best" data-v="{smallest!r}">{smallest:.2f}</td>' in text
    for number in numbers(comparison):
        assert f'data-v="{number!r}">{number:.2f}</td>' in text


def test_without_the_row_nothing_shows_it():
    comparison = sample_comparison()
    for text in (comparison_text(comparison, width=300), results_csv(comparison), results_json(comparison)):
        assert "bits_per_parameter" not in text
        assert "bits/param" not in text

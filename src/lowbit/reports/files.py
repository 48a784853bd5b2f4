"""The comparison as files: results.json, results.csv and report.html."""

import csv
import io
from pathlib import Path

from lowbit.files import write_atomically
from lowbit.measurement.results import Comparison, as_text
from lowbit.reports.columns import computed
from lowbit.reports.page import page

REPORTS = ("results.json", "results.csv", "report.html")
# What a spreadsheet would run as a formula if a recipe or a file name began with it.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_reports(comparison: Comparison, folder: Path | str) -> tuple[Path, Path, Path]:
    """Write results.json, results.csv and report.html into `folder`, each whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    names = {row.file for row in comparison.rows}
    linked = {name for name in names if name == Path(name).name and (folder / name).is_file()}
    return (
        write_atomically(folder / "results.json", results_json(comparison)),
        write_atomically(folder / "results.csv", results_csv(comparison)),
        write_atomically(folder / "report.html", page(comparison, linked={*linked, *REPORTS})),
    )


def results_json(comparison: Comparison) -> str:
    """The text of results.json: the comparison as it is, and in each row the columns that are computed from it."""
    data = comparison.to_data()
    for line, row in zip(data["rows"], comparison.rows, strict=True):
        line |= computed(row)
    return as_text(data)


def results_csv(comparison: Comparison) -> str:
    """One line per row, the numbers of results.json under the same names; a missing number is an empty field."""
    names = [metric.name for metric in comparison.metrics]
    lines = [
        {**row.scalars(), **computed(row), **{name: row.scores.get(name) for name in names}} for row in comparison.rows
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: _harmless(value) for key, value in line.items()})
    return file.getvalue()


def _harmless(value: str | int | float | None) -> str | int | float | None:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value

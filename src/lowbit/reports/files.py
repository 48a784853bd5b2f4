"""The comparison as files: results.json, results.csv, report.html, and a Markdown table for READMEs."""

import csv
import dataclasses
import io
from pathlib import Path

from lowbit.files import write_atomically
from lowbit.measurement.results import Comparison, Row
from lowbit.reports.columns import columns_of
from lowbit.reports.page import page

# What a spreadsheet would run as a formula if a recipe or a file name began with it.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_reports(comparison: Comparison, folder: Path | str) -> tuple[Path, Path, Path]:
    """Write results.json, results.csv and report.html into `folder`, each whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    return (
        write_atomically(folder / "results.json", comparison.to_json()),
        write_atomically(folder / "results.csv", results_csv(comparison)),
        write_atomically(folder / "report.html", page(comparison)),
    )


def results_csv(comparison: Comparison) -> str:
    """One line a row, the scalars of results.json under the same names; a missing number is an empty field."""
    file = io.StringIO()
    names = [field.name for field in dataclasses.fields(Row) if field.name != "details"]
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        writer.writerow({key: _harmless(value) for key, value in row.scalars().items()})
    return file.getvalue()


def results_markdown(comparison: Comparison, *, titles: tuple[str, ...] = ()) -> str:
    """The table in Markdown, with all columns or those named in `titles`."""
    columns = [c for c in columns_of(comparison) if not titles or c.title in titles]
    heads = ["recipe", *(f"{c.title} {c.unit}".strip() for c in columns)]
    lines = [heads, ["---", *("---:" for _ in columns)]]
    lines += [[row.name, *(c.text(row) for c in columns)] for row in comparison.rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _harmless(value: str | int | float | None) -> str | int | float | None:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value

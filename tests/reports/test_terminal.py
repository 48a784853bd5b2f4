"""The table fits the terminal and keeps what matters."""

import dataclasses
import io

import pytest
from rich.cells import cell_len

from comparison_sample import comparison_text, sample_comparison, without_labels
from lowbit.reports import units
from lowbit.reports.columns import COLUMNS, best_of
from lowbit.reports.console import Console
from lowbit.reports.footnotes import complaints, footnotes
from lowbit.reports.page import page
from lowbit.reports.terminal import print_comparison


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
def test_no_line_is_too_long_and_no_row_wraps(width):
    comparison = sample_comparison()
    lines = comparison_text(comparison, width=width).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    for row in comparison.rows:
        (line,) = (line for line in lines if line.startswith(f"{row.recipe} "))
        assert units.ratio(row.file_ratio) in line
        assert "…" not in line


def test_eighty_columns_hold_what_matters_and_wide_ones_everything():
    narrow, wide = (comparison_text(sample_comparison(), width=width).splitlines()[0] for width in (80, 230))
    for word in ("size", "smaller", "accuracy", "flips", "KL", "verdict", "faster"):
        assert word in narrow
    for column in COLUMNS:
        assert column.title in wide or column.title in ("agreement", "MSE", "arena")
    assert narrow.split() == [word for word in wide.split() if word in narrow.split()]  # the order stays


def test_the_control_is_named_and_so_is_what_was_not_coded():
    comparison = sample_comparison()
    (note,) = (note for note in footnotes(comparison) if note.startswith("Float file"))
    assert "zstd -19: 8.22 MB" in note
    assert "xz -9: 8.18 MB" in note
    rows = (*comparison.rows[:2], dataclasses.replace(comparison.rows[2], archive_bytes=None))
    notes = footnotes(dataclasses.replace(comparison, rows=rows))
    assert "Not entropy-coded, because too large or in several files: linear16." in notes


def test_without_labels_agreement_takes_the_place_of_accuracy():
    text = comparison_text(without_labels(sample_comparison()), width=80)
    assert "agreement" in text.splitlines()[0]
    assert "accuracy" not in text
    assert "Agreement with float on 372 images" in text


def test_names_cannot_smuggle_in_markup_and_long_ones_are_cut():
    comparison = sample_comparison()
    rows = [comparison.rows[0], dataclasses.replace(comparison.rows[1], recipe="[red]" + "x" * 60)]
    text = comparison_text(dataclasses.replace(comparison, rows=tuple(rows)), width=80)
    assert "[red]xxx" in text
    assert "…" in text
    assert "3.69×" in text


def test_warnings_come_first():
    comparison = sample_comparison()
    slow = dataclasses.replace(comparison.rows[1], latency_ratio=0.8)
    busy = dataclasses.replace(comparison.environment, cpu_share=0.6)
    notes = footnotes(dataclasses.replace(comparison, rows=(comparison.rows[0], slow), environment=busy))
    assert notes[0] == "int8 is slower than float here (0.80×)."
    assert "60%" in notes[1]
    assert complaints(comparison) == (
        "linear4: asked 4 bits for features.0.0, given float32: the first layer is sensitive.",
    )


def test_many_complaints_are_counted():
    many = dataclasses.replace(sample_comparison(), notes=tuple(f"note {i}." for i in range(20)))
    text = comparison_text(many)
    assert "note 5." in text
    assert "note 6." not in text
    assert "15 more" in text


def test_sizes_of_small_files_are_in_kilobytes():
    comparison = sample_comparison()
    rows = tuple(
        dataclasses.replace(row, file_bytes=row.file_bytes // 1000, archive_bytes=None) for row in comparison.rows
    )
    text = comparison_text(dataclasses.replace(comparison, rows=rows), width=100)
    assert "kB" in text.splitlines()[1]
    assert f"{rows[1].file_bytes / 1e3:.2f}" in text


def test_the_best_of_the_quantized_files_stands_out():
    rows = sample_comparison().rows
    size = next(column for column in COLUMNS if column.title == "size")
    assert best_of(size, rows[1:]) == "0.68"
    assert best_of(size, rows[1:2]) == ""
    assert best_of(size, (rows[1], rows[1], rows[1])) == ""
    # All that read the same stand out together: a byte more or less is not seen.
    twin = dataclasses.replace(rows[-1], file_bytes=rows[-1].file_bytes + 1)
    text = page(dataclasses.replace(sample_comparison(), rows=(*rows, twin)))
    assert text.count('best" data-v="679254">0.68<') == text.count('best" data-v="679255">0.68<') == 1
    file = io.StringIO()
    print_comparison(sample_comparison(), console=Console(file=file, width=100, force_terminal=True))
    assert "\x1b[1;32m0.68" in file.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.size(8_900_000), "8.90 MB"),
        (units.size(999_900), "1.00 MB"),
        (units.size(679_000), "679 kB"),
        (units.size(12), "12 B"),
        (units.size(None), "–"),
        (units.megabytes(12_340_000), "12.3"),
        (units.megabytes(1_234_000_000), "1,234"),
        (units.megabytes(3_210), "0.00321"),
        (units.ratio(3.694), "3.69×"),
        (units.ratio(13.1), "13.1×"),
        (units.percent(0.94892), "94.9"),
        (units.interval(0.9, 0.951), "90.0–95.1"),
        (units.amount(97_800_000), "97.8 M"),
        (units.amount(999_999_999), "1.00 G"),
        (units.amount(12), "12"),
        (units.smaller(1.0), "1.00x smaller"),
        (units.smaller(0.8), "1.25x larger"),
        (units.small(0.0), "0"),
        (units.small(1.1e-9), "1.1e-9"),
        (units.small(0.00028), "0.00028"),
        (units.divergence(6e-22), "<1e-9"),
        (units.divergence(0.0), "0"),
        (units.divergence(2e-9), "2.0e-9"),
        (units.divergence(None), "–"),
        (units.small(0.21), "0.21"),
        (units.small(10.8), "10.80"),
        (units.p_value(1.0), "1.00"),
        (units.p_value(0.0625), "0.062"),
        (units.p_value(1e-9), "<0.001"),
        (units.count(2227715), "2,227,715"),
        (units.milliseconds(0.95), "0.95"),
        (units.milliseconds(0.0123), "0.0123"),
    ],
)
def test_numbers_as_text(text, expected):
    assert text == expected

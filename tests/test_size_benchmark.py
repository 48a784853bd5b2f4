"""The size benchmark's CSV, tables and plot: what stands in the repository is what was measured."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest


@pytest.fixture
def size(import_benchmark):
    return import_benchmark("size")


@pytest.fixture
def rows(size):
    one = size.Row("resnet20", "NNCodec", "qp -32", 160_000, 4.0, 7.0, 80.5, 0.5, 0.01, 99, 0.4, "weights alone")
    two = dataclasses.replace(one, setting="qp -26", bytes=80_000, bits_per_weight=2.0, kl=0.16)
    three = dataclasses.replace(one, tool="lowbit pack", setting="a", bytes=80_000, bits_per_weight=2.0, note="")
    four = dataclasses.replace(three, setting="b", bytes=40_000, bits_per_weight=1.0, kl=0.16)
    return [one, two, three, four]


def test_rows_come_back_and_find_their_places(size, rows, tmp_path):
    path = tmp_path / "deeper" / "rows.csv"
    results = size.RESULTS
    merged = []
    for row in reversed(rows):
        merged = results.merged(merged, [row])
    assert merged == rows
    results.add(merged, path)
    assert results.read(path) == rows
    assert results.merged(rows, [dataclasses.replace(rows[1], kl=0.2)])[1].kl == 0.2


def test_equal_kl_is_read_off_a_straight_line_in_log_kl(size, rows):
    assert size.bits_at(rows, "NNCodec", 0.04) == pytest.approx(3.0)
    assert size.bits_at(rows, "NNCodec", 0.16) == pytest.approx(2.0)
    assert size.bits_at(rows, "NNCodec", 0.5) is None
    assert "lowbit pack 1.60 bits per weight, NNCodec 3.21: 50 % fewer bytes" in size.markdown(rows)


def test_tables_have_every_row(size, rows):
    table = size.markdown(rows)
    assert "| resnet20 | NNCodec (weights alone) | qp -32 | 160,000 | 4.00 | 7.0x | 0.010 | +0.50 | 99 | 0.4 |" in table
    assert len([line for line in table.splitlines() if line.startswith("| resnet20")]) == len(rows)
    fixed = dataclasses.replace(rows[0], tool="lowbit, fixed width")
    assert "fixed width" not in size.markdown([fixed, *rows], short=True)
    text = "a\n<!-- size table: resnet20 short -->\nold\n<!-- end size table -->\nb\n"
    once = size.RESULTS.filled(text, lambda which: size.table([fixed, *rows], which))
    assert "old" not in once
    assert size.markdown(rows, model="resnet20", short=True) in once
    assert "fixed width" not in once


def test_the_plot_has_every_point(size, rows):
    drawn = ElementTree.fromstring(size.plot(rows))
    assert len(drawn.findall("{http://www.w3.org/2000/svg}circle")) == len(rows)


def test_the_repository_shows_what_its_csv_says(size, import_benchmark):
    benchmark_rows = import_benchmark("rows")
    rows = size.RESULTS.read()
    assert {row.model for row in rows} == set(size.MODELS)
    assert size.PLOT.read_text() == size.plot(rows), "run python benchmarks/size.py --table"
    for path in benchmark_rows.READMES:
        text = path.read_text(encoding="utf-8")
        assert "<!-- size table" in text
        filled = size.RESULTS.filled(text, lambda which: size.table(rows, which))
        assert filled == text, "run python benchmarks/size.py --table"

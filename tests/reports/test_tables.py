"""A row is one line, whatever stands in it, and names keep both ends."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lowbit.reports.console import Console
from lowbit.reports.tables import fitted, numbers, shortened, words

LONG = "/vision_model/encoder/layers.11/self_attn/out_proj/MatMul"


def lines(columns, rows, width, **how):
    file = io.StringIO()
    Console(file=file, width=width, no_color=True).print(fitted(columns, rows, width, **how))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize(
    "name",
    [LONG, "畳み込み層の重みテンソル" * 5, "e\u0301" * 90, "\x1b[2J" * 20, "a\nb" * 30, "👩‍👩‍👧" * 30],
    ids=range(6),
)
def test_a_row_is_one_line_that_fits(name, width):
    rows = [(name, "ConvTranspose", "1x1280x7x7", "123 k"), ("short", "Conv", "1x3x8x8", "7")]
    shown = lines([words("layer"), words("op"), words("output"), numbers("MACs")], rows, width)
    assert len(shown) == 4  # the headings and the line below them
    assert max(map(cell_len, shown)) <= width
    assert "\x1b" not in "".join(shown)
    assert shown[2].rstrip().endswith("123 k")


def test_numbers_are_never_cut_and_the_widest_words_are_cut_first():
    rows = [(LONG, "linear4/channel/affine", "12,345,678")]
    (row,) = lines([words("tensor"), words("scheme"), numbers("bytes")], rows, 60)[2:]
    assert row.split()[1:] == ["linear4/channel/affine", "12,345,678"]
    assert row.startswith("/vision_m")
    assert "…" in row


def test_all_that_there_is_room_for_is_shown():
    assert LONG in lines([words("layer"), numbers("bits")], [(LONG, "4.00")], 80)[2]
    assert "…" not in "".join(lines([words("layer")], [("ab",)], 3))


def test_a_table_of_nothing_has_its_headings():
    assert lines([words("layer"), numbers("bits")], [], 80)[0].split() == ["layer", "bits"]


def test_a_thousand_layers():
    rows = [(f"{LONG}_{i}", f"{i:,}") for i in range(1000)]
    shown = lines([words("layer"), numbers("bytes")], [*rows, ("all", "1")], 50, total=True)
    assert len(shown) == 1000 + 4
    assert max(map(cell_len, shown)) <= 50
    assert len(set(shown)) > 1000  # the end of a name tells layers apart


@settings(max_examples=50)
@given(st.text(max_size=60), st.integers(0, 70))
def test_what_is_cut_takes_no_more_cells_than_there_are(text, room):
    short = shortened(text, room)
    assert cell_len(short) <= room
    assert (short == text) == (cell_len(text) <= room)


def test_without_a_terminal_nothing_is_cut_or_broken(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    console = Console(file=io.StringIO())
    assert not console.limited
    console.print(fitted([words("layer")], [(LONG * 9,)], console.width))
    console.print("word " * 99)
    assert [len(line) > 400 for line in console.file.getvalue().splitlines()] == [True] * 4


def test_names_are_cut_where_they_stay_different():
    names = [f"features.{block}.conv.{place}.0.output" for block in range(1, 18) for place in (0, 1)]
    shown = lines([words("layer")], [[name] for name in names], 23)
    assert len({line for line in shown if "…" in line}) == len(names)

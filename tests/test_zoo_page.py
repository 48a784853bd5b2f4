"""docs/zoo.md says what the CSV says, and the CSV what was asked of lowbit: not behind ONNX Runtime's own tool."""

import pytest

BEHIND = 1.0  # decibels that are chance


@pytest.fixture
def zoo(import_benchmark):
    return import_benchmark("zoo_table")


def test_the_page_is_made_of_the_rows(zoo):
    assert zoo.PAGE.read_text(encoding="utf-8") == zoo.page(zoo.RESULTS.read())


def test_the_rows_are_whole(zoo):
    rows = zoo.RESULTS.read()
    assert {row.recipe for row in rows} == set(zoo.RECIPES)
    assert (
        len({(row.model, row.recipe) for row in rows})
        == len(rows)
        == len({row.model for row in rows}) * len(zoo.RECIPES)
    )
    assert all(row.onnxruntime is not None or row.note for row in rows)


def test_int8_is_nowhere_behind_the_peer(zoo):
    behind = {
        row.model: (row.onnxruntime, row.peer)
        for row in zoo.RESULTS.read()
        if row.peer is not None and (row.onnxruntime is None or row.onnxruntime < row.peer - BEHIND)
    }
    assert behind == {}


def test_a_line_of_the_page_names_what_failed_once(zoo):
    rows = [zoo.Row("tiny", "int8", 1000, 0.5, 20.0, 21.0, None, 22.5, "y", "LiteRT: refused"),
            zoo.Row("tiny", "linear8", 1500, None, 30.0, 30.0, None, None, "y", "LiteRT: refused")]  # fmt: skip
    page = zoo.page(rows)
    assert "| tiny | 20.0 | **22.5** | 50 |  | 1.0 |  |  |" in page
    assert page.count("LiteRT: refused") == 1
    assert "- tiny, every recipe: LiteRT: refused" in page

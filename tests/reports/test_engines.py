"""Files of one recipe for several engines: told apart where they differ, shown once where they do not."""

import dataclasses
import re

import pytest

from comparison_sample import comparison_text, on_three_engines, sample_comparison
from lowbit.reports.footnotes import complaints, footnotes
from lowbit.reports.page import findings, page
from lowbit.reports.sections import SECTIONS

DRAWN = {name: draw for name, _, draw in SECTIONS}


@pytest.fixture(scope="module")
def comparison():
    return on_three_engines(sample_comparison())


def test_files_bear_their_engine_where_a_recipe_has_several(comparison):
    names = [row.name for row in comparison.files]
    assert names[:5] == [
        "float, onnxruntime",
        "float, litert",
        *(f"int8, {row.engine}" for row in comparison.rows[3:6]),
    ]
    recipes = list(dict.fromkeys(row.recipe for row in comparison.rows[6:]))
    assert [name for name in names[5:] if not name.startswith("linear8")] == [
        recipe for recipe in recipes if recipe != "linear8"
    ]
    assert {name for name in names if name.startswith("linear8")} == {"linear8, onnxruntime", "linear8, litert"}
    bytes_by_file = str(DRAWN["size"](comparison))
    assert all(bytes_by_file.count(f">{name}<") >= 3 for name in names)


def test_float_files_are_no_answer_to_what_is_best(comparison):
    found = {question: answer for question, answer, _ in findings(comparison)}
    assert found["Closest to float"].split(",")[0] in {row.recipe for row in comparison.rows[3:]}
    assert found["Fastest"].startswith("int8, litert")
    # Float in another engine has the least KL; what stands out is a quantized file.
    line = next(line for line in str(DRAWN["table"](comparison)).split("<tr") if ">float, litert<" in line)
    assert "best" not in line


def test_what_files_of_a_recipe_have_in_common_is_shown_once(comparison):
    errors = str(DRAWN["weight-errors"](comparison))
    assert ">int8<" in errors
    for section in (errors, *(str(DRAWN[name](comparison)) for name in ("layers", "weights"))):
        assert not re.search("int8, (onnxruntime|openvino|litert)", section)
    assert "are one point" in str(DRAWN["trade-off"](comparison))
    rows = list(comparison.rows)
    place = next(i for i, row in enumerate(rows) if row.file == "int8.tflite")
    layers = tuple(dataclasses.replace(layer, sqnr_db=9.0) for layer in rows[place].details.layers)
    rows[place] = dataclasses.replace(
        rows[place], accuracy=0.5, details=dataclasses.replace(rows[place].details, layers=layers)
    )
    other = dataclasses.replace(comparison, rows=tuple(rows))
    for section in ("weight-errors", "trade-off"):
        drawn = str(DRAWN[section](other))
        assert "int8, litert" in drawn
        assert "int8, onnxruntime" in drawn
        assert "int8, openvino" not in drawn
    steps, counts = str(DRAWN["making"](comparison)).split("How many numbers")
    assert steps.count(">int8<") == len(comparison.rows[3].details.steps)
    assert counts.count("int8, litert") == 1


def test_images_name_the_engines_that_see_them_otherwise(comparison):
    text = str(DRAWN["examples"](comparison))
    assert "linear4, cluster4" in text
    assert "onnxruntime" not in text
    rows = tuple(
        dataclasses.replace(row, details=dataclasses.replace(row.details, examples=()))
        if row.label == "linear4, onnxruntime"
        else row
        for row in comparison.rows
    )
    assert "linear4 (openvino)" in str(DRAWN["examples"](dataclasses.replace(comparison, rows=rows)))


def test_notes_are_those_of_the_recipe_unless_only_some_files_have_them(comparison):
    assert complaints(comparison)[0].startswith("linear4: asked 4 bits")
    rows = list(comparison.rows)
    for row, note in ((3, "stays float."), (4, "stays float."), (5, "stays float."), (5, "is slow.")):
        notes = (*rows[row].details.notes, note)
        rows[row] = dataclasses.replace(rows[row], details=dataclasses.replace(rows[row].details, notes=notes))
    found = complaints(dataclasses.replace(comparison, rows=tuple(rows)))
    assert found[:2] == ("int8: stays float.", "int8, litert: is slow.")


def test_sentences_say_which_float_file_is_meant(comparison):
    notes = footnotes(comparison)
    assert "Fastest of all: int8.tflite with litert (0.79 ms)." in notes
    (fastest,) = (note for note in notes if note.startswith("Fastest engine for each recipe"))
    assert fastest.count("litert") == 3
    assert "int8, openvino: expected to run 1.70× as fast as float with onnxruntime, measured 1.49×." in notes
    assert not any("slower" in note and "float, " in note for note in notes)
    slow = tuple(
        dataclasses.replace(row, latency_ratio=0.81) if row.label == "linear4, openvino" else row
        for row in comparison.rows
    )
    # Against float on the same engine, which is at 0.9.
    assert "linear4, openvino is slower than float with openvino here (0.90×)." in footnotes(
        dataclasses.replace(comparison, rows=slow)
    )
    alone = dataclasses.replace(
        comparison, rows=tuple(row for row in slow if row.recipe != "float" or row.engine == "onnxruntime")
    )
    assert "linear4, openvino is slower than float with onnxruntime here (0.81×)." in footnotes(alone)
    assert "Dashed line: float with onnxruntime" in page(comparison)


def test_the_terminal_has_room_for_engines(comparison):
    lines = comparison_text(comparison, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(row.label) for line in lines) for row in comparison.rows)


def test_between_engines_milliseconds_come_first(comparison):
    several, one = (comparison_text(c, width=54).splitlines()[0].split() for c in (comparison, sample_comparison()))
    assert {"smaller", "accuracy", "latency"} <= set(several)
    assert "latency" not in one

"""One table of words: `lowbit explain` and the glossary say the same, and every heading of a table is in it."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.table import Table

import networks
from comparison_sample import comparison_text, sample_comparison
from lowbit.diagnosis.findings import Diagnosis, LayerFigures, TensorRow
from lowbit.errors import LowbitError
from lowbit.measurement.tasks.table import TASKS
from lowbit.reports.columns import COLUMNS, OUTPUT_COLUMNS
from lowbit.reports.diagnosis import print_diagnosis
from lowbit.reports.glossary.table import SUBJECTS, glossary, meanings, terms
from test_cli import run

GLOSSARY = Path(__file__).resolve().parents[1] / "docs" / "glossary.md"
pytestmark = pytest.mark.usefixtures("quick_measuring")


def test_the_glossary_is_printed_from_the_table():
    text = GLOSSARY.read_text(encoding="utf-8")
    assert text.partition("## Words not used")[0] == glossary() + "\n", (
        "after changes of words: python -m lowbit.reports.glossary prints all of docs/glossary.md but its last section"
    )


@pytest.mark.parametrize("term", list(terms()), ids=lambda term: f"{term.subject}: {term.words}")
def test_a_meaning_is_one_to_five_sentences(term):
    assert term.meaning == term.meaning.strip()
    assert not term.meaning.endswith(".")
    assert 1 <= len(re.findall(r"\.(?= |$)", term.sentence())) <= 5
    assert "|" not in term.words + term.meaning  # which would end a cell of the glossary
    for name in term.names:
        assert term in meanings(name)


def test_no_two_terms_of_a_subject_share_a_word():
    for subject in SUBJECTS:
        names = [name for term in terms() if term.subject == subject and "(" not in term.words for name in term.names]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "title",
    sorted(
        {column.title for column in (*COLUMNS, *OUTPUT_COLUMNS)} | {m.title for t in TASKS.values() for m in t.metrics}
    ),
)
def test_every_heading_of_a_comparison_is_explained(title):
    assert meanings(title)


def test_every_heading_of_the_other_tables_is_explained(tmp_path, capsys, monkeypatch):
    onnx.save(networks.residual_network(), tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=networks.inputs(8))
    heads: set[str] = set()
    add = Table.add_column
    monkeypatch.setattr(Table, "add_column", lambda self, head, **how: (heads.add(head), add(self, head, **how)))
    monkeypatch.setenv("COLUMNS", "200")
    model, data = tmp_path / "net.onnx", tmp_path / "x.npz"
    for words in (
        ["inspect", model], ["inspect", model, "--speed"], ["plan", model, "-r", "linear4", "--rule", "first=int8"],
        ["quantize", model, "-r", "int8", "--calibration", data, "--effort", "fast", "-o", tmp_path / "int8.onnx"],
        ["pack", model, "-o", tmp_path / "net.lowbit"],
    ):  # fmt: skip
        code, _, err = run(*words, capsys=capsys)
        assert code == 0, err
    layers, tensors = (LayerFigures("conv", "Conv", False, 0.1),), (TensorRow("conv", "y"),)
    print_diagnosis(Diagnosis("net.onnx", "int8", layers=layers, tensors=tensors))
    assert {"layer", "bits", "float µs", "rule", "scheme", "outcome", "far", "added", "in an archive"} <= heads
    for head in heads:
        assert meanings(head)


@pytest.mark.parametrize("word", ["kl", " KL ", "flips", "Zero   Point", "µs", "95 % interval", "32/n", "codes"])
def test_capitals_spaces_and_plurals_make_no_difference(word):
    assert meanings(word)


def test_a_word_of_several_subjects_has_several_meanings():
    assert {term.subject for term in meanings("candidate")} == {"Passes over the network", "Searching"}


@pytest.mark.parametrize(("word", "near"), [("zero pont", "zero point"), ("qqqq", None), ("\x1b[2J", None), ("", None)])
def test_an_unknown_word_names_the_nearest(word, near):
    with pytest.raises(LowbitError) as caught:
        meanings(word)
    assert ("Did you mean" in str(caught.value)) == (near is not None)
    assert near is None or near in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_the_command_explains_lists_and_refuses(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("explain", "zero", "point", capsys=capsys)
    assert (code, out.splitlines()[0].split()[:2]) == (0, ["zero", "point"])
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run("explain", capsys=capsys)
    assert code == 0
    assert all(subject in out for subject in SUBJECTS)
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run("explain", "kl", "--json", capsys=capsys)
    assert json.loads(out)[0]["words"] == ["KL"]
    code, out, _ = run("explain", "--json", capsys=capsys)
    assert len(json.loads(out)) == len(list(terms()))
    code, _, err = run("explain", "flipp", capsys=capsys)
    assert code == 2
    assert "Did you mean flip" in err


def test_the_table_of_a_comparison_points_to_it_and_explains_only_what_it_shows():
    text = comparison_text(sample_comparison(), width=80)
    assert "`lowbit explain KL`" in text
    assert "Wilson" not in text
    narrow = comparison_text(sample_comparison(), width=40)
    assert "Verdict" not in narrow
    assert "`lowbit explain" in narrow
    untimed = [dataclasses.replace(row, latency_ratio=None, latency_ms=None) for row in sample_comparison().rows]
    assert "Latency" not in comparison_text(dataclasses.replace(sample_comparison(), rows=tuple(untimed)), width=80)

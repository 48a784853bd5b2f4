"""Memory in a fresh process: it grows with the model, and a broken file is a note, no crash."""

import sys

import pytest

from lowbit.measurement.memory import _parse, memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
def test_a_larger_model_takes_more_memory(small, large, pictures):
    a, b = (memory(path, pictures.x[:1]) for path in (small, large))
    assert a.note == b.note == ""
    assert b.load_bytes - a.load_bytes > 14_000_000  # 16 MB of weights
    assert b.peak_bytes >= b.load_bytes
    assert a.load_bytes < 20_000_000  # importing the runtime is not counted


def test_a_file_that_is_no_model_is_a_note(pictures):
    result = memory(b"not a model", pictures.x[:1])
    assert (result.load_bytes, result.peak_bytes) == (None, None)
    assert "not measured" in result.note
    assert "Error" in result.note


def test_nothing_from_the_current_folder_is_imported(tmp_path, monkeypatch, small, pictures):
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    assert "current folder" not in memory(small, pictures.x[:1]).note


@pytest.mark.parametrize(
    ("code", "out", "err", "note"),
    [
        (0, "", "", "no answer"),
        (0, "[]", "", "no answer"),
        (0, '{"load_bytes": 1}', "warning", "warning"),
        (-9, "", "", "SIGKILL"),
        (-11, "", "Segmentation fault", "SIGSEGV"),
        (1, "", "a\nLast line", "Last line"),
    ],
)
def test_odd_answers(code, out, err, note):
    result = _parse(code, out, err)
    assert result.note == f"memory was not measured: {note}"
    assert result.killed == (note if code < 0 else "")


def test_a_good_answer():
    result = _parse(0, 'noise\n{"load_bytes": 5, "peak_bytes": null, "note": "n"}\n', "")
    assert (result.load_bytes, result.peak_bytes, result.note) == (5, None, "n")

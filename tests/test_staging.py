"""Results in a folder are the old ones or the new ones, at whatever step the process is killed; other files stay."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lowbit import leftovers, staging
from lowbit.errors import OutputError
from lowbit.files import write_atomically
from lowbit.staging import staged_folder

NAMES = ("a.onnx", "b.onnx", "report.html", "results.json")
# One run, killed at its step number argv[3]: every change of names in the folder is one.
KILLED = """
import os, signal, sys
from lowbit.staging import staged_folder
steps = 0
def stepping(change):
    def step(*given, **named):
        global steps
        steps += 1
        if steps == int(sys.argv[3]):
            os.kill(os.getpid(), getattr(signal, sys.argv[4]))
        return change(*given, **named)
    return step
for name in ("rename", "link", "unlink", "replace", "rmdir", "mkdir", "fsync", "open"):
    setattr(os, name, stepping(getattr(os, name)))
with staged_folder(sys.argv[1]) as stage:
    for name in ("a.onnx", "b.onnx", "report.html", "results.json"):
        (stage / name).write_text(sys.argv[2])
"""


def run(folder, text, step=0, how="SIGKILL"):
    command = [sys.executable, "-c", KILLED, str(folder), text, str(step), how]
    return subprocess.run(command, check=False, capture_output=True).returncode


def put(folder, text):
    with staged_folder(folder) as stage:
        for name in NAMES:
            (stage / name).write_text(text)


def tidy(folder):
    """What the next run does first, even if it then comes to nothing."""
    with pytest.raises(ZeroDivisionError), staged_folder(folder):
        raise ZeroDivisionError


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def generation(folder):
    """Whose results these are: they are whole."""
    found = contents(folder)
    assert found.pop("mine.txt") == "mine"
    assert sorted(found) == sorted(NAMES)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    (text,) = set(found.values())
    return text


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_a_run_that_is_stopped_at_any_step_leaves_old_or_new_results(tmp_path, how):
    seen, step = [], 0
    while True:
        step += 1
        folder = tmp_path / str(step)
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
        put(folder, "old")
        ended = run(folder, "new", step, how)
        found = contents(folder)
        if "results.json" in found:
            assert {found[name] for name in NAMES} == {found["results.json"]}
        if how == "SIGINT":  # it could still clean up
            generation(folder)
        tidy(folder)
        seen.append(generation(folder))
        if ended == 0:
            break
        step += how == "SIGINT"  # its steps are many, since it cleans up as well
    assert seen == sorted(seen, reverse=True)
    assert (seen[0], seen[-1]) == ("old", "new")
    assert step > 10


def test_leftovers_of_a_run_that_lives_are_not_touched(tmp_path):
    with staged_folder(tmp_path) as first:
        (first / "x").write_text("first")
        with staged_folder(tmp_path) as second:
            assert first.exists()
            (second / "x").write_text("second")
            (second / "y").write_text("second")
        handle, part = leftovers.make_part(tmp_path)
        write_atomically(tmp_path / "z", "z")
        assert part.exists()
        os.close(handle)
        write_atomically(tmp_path / "z", "z")
        assert not part.exists()
    assert contents(tmp_path) == {"x": "first", "y": "second", "z": "z"}


def test_only_what_lowbit_made_is_removed(tmp_path):
    for name in (".lowbit-cache", ".lowbit-12345678.txt", ".x.12345678.part", ".lowbit-ABCDEFGH.part"):
        (tmp_path / name).write_text("mine")
    (tmp_path / ".lowbit-12345678").symlink_to(tmp_path)
    (tmp_path / "kept").mkdir()
    tidy(tmp_path)
    write_atomically(tmp_path / "new", "new")
    assert len(list(tmp_path.iterdir())) == 7


def test_links_that_a_stranger_left_are_not_followed(tmp_path):
    """Else unpacking a folder and comparing into it would write wherever its maker liked."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "folder"
    whole = folder / ".lowbit-12345678.whole"
    whole.mkdir(parents=True)
    (whole / "results.json").write_text("theirs")
    (whole / "link").symlink_to(outside)
    (folder / "results.json").symlink_to(outside)
    os.mkfifo(folder / ".lowbit-87654321.part")
    tidy(folder)
    assert outside.read_text() == "mine"
    assert not (folder / "results.json").is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == [".lowbit-87654321.part", "results.json"]


def test_the_folder_may_be_a_link_the_current_one_or_new(tmp_path, monkeypatch):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    put(tmp_path / "link", "old")
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(real)
    put(".", "new")
    assert contents(real) == dict.fromkeys(NAMES, "new")
    put(tmp_path / "not" / "there", "new")
    assert contents(tmp_path / "not" / "there") == dict.fromkeys(NAMES, "new")
    tidy(tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_results_are_written_through_links_and_where_links_cannot_be_made(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("old")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "report.html").symlink_to(elsewhere)

    def no_link(*_, **__):
        raise PermissionError

    monkeypatch.setattr(os, "link", no_link)
    put(folder, "new")
    assert (folder / "report.html").is_symlink()
    assert contents(folder) == dict.fromkeys(NAMES, "new")
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)


def test_what_cannot_be_written_at_the_end_is_kept_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "folder"
    put(folder, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging, "_publish", full)
    with pytest.raises(OutputError, match="What was finished is in") as caught, staged_folder(folder) as stage:
        (stage / "results.json").write_text("new")
    assert contents(caught.value.kept) == {"results.json": "new"}
    assert contents(folder) == dict.fromkeys(NAMES, "old")
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_names_that_cannot_be_written_are_refused_before_the_work(tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(OutputError, match="is a folder"), staged_folder(tmp_path, ["results.json"]):
        pytest.fail("the work has begun")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_name_as_long_as_the_system_takes_can_be_written(tmp_path):
    path = tmp_path / ("x" * 250 + ".onnx")
    write_atomically(path, "x")
    assert path.read_text() == "x"


def test_ctrl_c_while_results_are_put_in_place_finishes_that(tmp_path, monkeypatch):
    put(tmp_path, "old")
    link, calls = os.link, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        link(*given)

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(tmp_path, "new")
    assert contents(tmp_path) == dict.fromkeys(NAMES, "new")
    assert len(list(Path(tmp_path).iterdir())) == len(NAMES)


def test_without_locks_nothing_is_taken_for_a_leftover(tmp_path, monkeypatch):
    """As on Windows: results are as whole as elsewhere, and what killed runs left stays."""
    monkeypatch.setattr(leftovers, "fcntl", None)
    (tmp_path / ".lowbit-abcdefgh").mkdir()
    with staged_folder(tmp_path) as stage:
        (stage / "results.json").write_text("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lowbit-abcdefgh", "results.json"]


def test_a_folder_is_not_standard_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="several files"), staged_folder("-"):
        pytest.fail("there is no such folder")
    assert not list(tmp_path.iterdir())

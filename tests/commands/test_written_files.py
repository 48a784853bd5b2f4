"""No command line destroys a file of the user's: what is read, or what is no file, is never written over."""

import os
import stat

import numpy as np
import onnx
import pytest

import networks
from lowbit.errors import DataError, OutputError
from lowbit.files import replaceable, write_atomically
from lowbit.formats.opening import is_archive, pack_file
from lowbit.staging import staged_folder
from test_cli import SIZE, run


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(networks.residual_network().SerializeToString())
    return path


def other_name(path, kind):
    """The same file by another name."""
    if kind == "same":
        return path
    if kind == "dots":
        return path.parent / "sub" / ".." / path.name
    other = path.with_name(f"other{path.suffix}")
    os.link(path, other) if kind == "hard link" else other.symlink_to(path)
    return other


@pytest.mark.parametrize("kind", ["same", "dots", "hard link", "symbolic link"])
@pytest.mark.parametrize("command", ["quantize", "pack"])
def test_an_output_that_is_the_model_is_refused(model, kind, command, capsys):
    (model.parent / "sub").mkdir()
    before = model.read_bytes()
    given = ("-r", "linear4") if command == "quantize" else ()
    code, _, error = run(command, model, *given, "-o", other_name(model, kind), capsys=capsys)
    assert code == 2
    assert "is what the command reads" in error
    assert model.read_bytes() == before


def test_an_output_that_holds_the_weights_is_refused(tmp_path, capsys):
    path, beside = tmp_path / "net.onnx", tmp_path / "weights.onnx"
    onnx.save_model(
        networks.residual_network(), path, save_as_external_data=True, location=beside.name, size_threshold=0
    )
    before = beside.read_bytes()
    code, _, error = run("quantize", path, "-r", "linear4", "-o", beside, capsys=capsys)
    assert code == 2
    assert "is what the command reads" in error
    assert beside.read_bytes() == before


def test_an_output_that_is_a_calibration_file_is_refused(model, tmp_path, capsys):
    arrays = tmp_path / "arrays.onnx"  # whatever its name
    with arrays.open("wb") as file:
        np.savez(file, x=networks.inputs(4))
    before = arrays.read_bytes()
    given = ("-r", "linear4", "--calibration", arrays, "-o", arrays)
    code, _, error = run("quantize", model, *given, capsys=capsys)
    assert code == 2
    assert "is what the command reads" in error
    assert arrays.read_bytes() == before


@pytest.mark.parametrize("name", ["-", "net", "net.txt", "net.onnx.bak", "net.lowbit"])
def test_names_that_do_not_say_the_kind_are_refused(model, tmp_path, name, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("quantize", model, "-r", "linear4", "-o", name, capsys=capsys)
    assert code == 2
    assert ".onnx or .tflite" in error
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    code, _, error = run("pack", model, "-o", "small.onnx", capsys=capsys)
    assert (code, ".lowbit" in error) == (2, True)


def test_pipes_and_folders_are_neither_read_nor_replaced(model, tmp_path, capsys):
    pipe, folder = tmp_path / "pipe.onnx", tmp_path / "folder.onnx"
    os.mkfifo(pipe)
    folder.mkdir()
    for output, what in ((pipe, "a pipe"), (folder, "is a folder")):
        code, _, error = run("quantize", model, "-r", "linear4", "-o", output, capsys=capsys)
        assert (code, what in error) == (2, True), error
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    for command in (
        ("inspect", pipe),
        ("quantize", pipe, "-r", "linear4", "-o", tmp_path / "o.onnx"),
        ("quantize", model, "-r", "int8", "--calibration", pipe, *SIZE, "-o", tmp_path / "o.onnx"),
        ("pack", pipe, "-o", tmp_path / "o.lowbit"),
        ("unpack", pipe, "-o", tmp_path / "o.onnx"),
        ("measure", model, pipe, "--data", tmp_path),
        ("measure", model, "--data", "/dev/zero"),
    ):
        code, _, error = run(*command, capsys=capsys)
        assert (code, "a device or a pipe" in error) == (2, True), error
    assert not is_archive(pipe)
    with pytest.raises(DataError, match="device or a pipe"):
        pack_file(pipe)


def test_links_are_written_through(tmp_path):
    target, link, loop = tmp_path / "target", tmp_path / "link", tmp_path / "loop"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    new = tmp_path / "new"
    new.symlink_to(tmp_path / "not there yet")
    write_atomically(new, "made")
    assert (tmp_path / "not there yet").read_text() == "made"
    loop.symlink_to(loop)
    with pytest.raises(OutputError):
        write_atomically(loop, "x")
    assert replaceable("/nowhere/at/all").name == "all"


def test_results_do_not_replace_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "results.json")
    with pytest.raises(OutputError, match="a pipe"), staged_folder(tmp_path) as stage:
        (stage / "results.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]

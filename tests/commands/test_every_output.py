"""Every command that writes a file refuses, before the work, what it must not or cannot write."""

import inspect
import os
import re
import stat

import numpy as np
import pytest

import networks
from lowbit.cli import COMMANDS
from lowbit.commands.groups import FOLDER, OUTPUTS, flat
from lowbit.formats.opening import pack_file
from test_cli import run

# Command lines without their output, the option that names it, and the ending that it takes.
LINES = {
    "quantize": (["quantize", "MODEL", "-r", "linear4"], "-o", ".onnx"),
    "pack": (["pack", "MODEL"], "-o", ".lowbit"),
    "unpack": (["unpack", "ARCHIVE"], "-o", ".onnx"),
    "plan": (["plan", "MODEL", "-r", "int8"], "-o", ".json"),
    "prepare": (["prepare", "MODEL", "--mean", 0.5, "--std", 0.5], "-o", ".onnx"),
    "search": (["search", "MODEL", "--data", "DATA", "--max-drop", 1], "-o", ".onnx"),
    "search --report": (["search", "MODEL", "--data", "DATA", "--max-drop", 1, "-o", "NEW"], "--report", ".html"),
    "diagnose": (["diagnose", "MODEL", "--data", "DATA"], "--apply", ".json"),
    "export": (["export", "LITERT"], "--c-array", ".cc"),
    "export --resolver": (["export", "LITERT"], "--resolver", ".h"),
    "train": (["train", "builtin:train"], "-o", ".onnx"),
}


@pytest.fixture
def files(tmp_path):
    model, data = tmp_path / "net.onnx", tmp_path / "data.npz"
    model.write_bytes(networks.residual_network().SerializeToString())
    np.savez(data, x=networks.inputs(2))
    (tmp_path / "net.lowbit").write_bytes(pack_file(model))
    (tmp_path / "net.tflite").write_bytes(b"whatever it holds")
    return {"MODEL": model, "DATA": data, "ARCHIVE": tmp_path / "net.lowbit", "LITERT": tmp_path / "net.tflite",
            "NEW": tmp_path / "new.onnx"}  # fmt: skip


def outputs(folder, ending, read):
    """What no command may write, by what is said of it."""
    pipe, place, loop = (folder / f"{name}{ending}" for name in ("pipe", "place", "loop"))
    os.mkfifo(pipe)
    place.mkdir()
    loop.symlink_to(loop)
    same, hard, soft = read, folder / f"hard{ending}", folder / f"soft{ending}"
    os.link(read, hard)
    soft.symlink_to(read)
    yield from ((name, "is what the command reads") for name in (same, hard, soft))
    yield pipe, "is a device or a pipe"
    yield place, "is a folder"
    yield loop, "is no place for a file"
    yield "/dev/full", "is a device or a pipe"
    yield folder / "text.txt", "its name does not say"
    yield "-", "its name does not say"
    yield f"/proc/1/none{ending}", "cannot write"
    yield read / f"below{ending}", "cannot write"
    yield folder / f"{'x' * 300}{ending}", ""


@pytest.mark.parametrize("name", LINES)
def test_what_must_not_be_written_is_refused_before_the_work(name, files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line, option, ending = LINES[name]
    words = [files.get(word, word) for word in line]
    read = words[1] if os.path.isfile(words[1]) else files["MODEL"]
    given = list(outputs(tmp_path, ending, read))
    if read not in words:
        given = given[3:]
    before = {path.name: path.read_bytes() for path in files.values() if path.exists()}
    there = sorted(os.listdir(tmp_path))
    for output, said in given:
        code, out, error = run(*words, option, output, capsys=capsys)
        assert (code, said in error) == (2, True), (output, error)
        assert out == ""
    assert sorted(os.listdir(tmp_path)) == there
    assert {file: (tmp_path / file).read_bytes() for file in before} == before
    assert stat.S_ISFIFO((tmp_path / f"pipe{ending}").stat().st_mode)


def test_no_output_is_left_out():
    """So that a new command, or option, gets its line above."""
    written = set()
    for command in COMMANDS:
        for parameter in inspect.signature(flat(command), eval_str=True).parameters.values():
            option = next(iter(getattr(parameter.annotation, "__metadata__", ())), None)
            is_folder = getattr(option, "metavar", None) == FOLDER
            writes = re.match("Write|Also write|File to write|Page to write", getattr(option, "help", None) or "")
            if writes and not is_folder and parameter.annotation.__origin__ is not bool:
                assert parameter.name in OUTPUTS, (command.__name__, parameter.name)
                written.add(command.__name__)
    assert written == {name.split()[0] for name in LINES}

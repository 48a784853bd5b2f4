"""Files that were made to do harm: each meets some of the commands here, and all of them with `make hostile`."""

import dataclasses
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

import networks
from fuzz import hostile, kinds, run

FOLDER = Path(os.environ.get("LOWBIT_SHARED_DATA", "/nowhere")).parent / "hostile"
FILES = sorted(path for path in FOLDER.glob("*") if path.suffix in (".onnx", ".tflite"))
EACH = 2  # commands that a file meets


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    (folder / "model.onnx").write_bytes(networks.residual_network().SerializeToString())
    files = kinds._pictures()
    return kinds.Seeds(files, folder / "model.onnx", FOLDER / "data.npz")


@pytest.mark.skipif(not FILES, reason="the hostile files are not here")
def test_hostile_files_are_refused_in_a_sentence_or_work(made, tmp_path):
    finds = []
    for index, file in enumerate(FILES):
        kind = file.suffix[1:]
        lines = kinds.MODELS if kind == "onnx" else ("LEDGER FILE", "inspect FILE", "plan FILE -r int8")
        chosen = [(file.read_bytes(), lines[(EACH * index + each) % len(lines)]) for each in range(EACH)]
        finds += [(file.name, chosen[at][1], what) for at, what in run.batch(kind, chosen, made, tmp_path)]
    assert finds == []


def test_a_command_in_a_process_of_its_own_is_watched(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(networks.residual_network().SerializeToString())
    np.savez(tmp_path / "data.npz", x=networks.inputs(2))
    end = hostile.ended("inspect FILE", model, tmp_path / "data.npz", tmp_path)
    # What a process took before it became another counts for that one: here pytest itself, with all that ran before.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    assert (end.code, dataclasses.replace(end, memory=max(0, end.memory - before)).fault) == (0, "")
    assert 0 < end.seconds < hostile.SECONDS
    assert 20 << 20 < end.memory < max(hostile.BYTES, 2 * before)
    model.write_bytes(b"\x08\x07\x12\x00")
    end = hostile.ended("pack FILE -o OUT.lowbit", model, tmp_path / "data.npz", tmp_path)
    assert (end.code, dataclasses.replace(end, memory=0).fault) == (2, "")
    assert end.words.startswith("Error: ")


@pytest.mark.parametrize(
    ("ending", "fault"),
    [
        (hostile.Ending(0, "", 1.0, 1 << 28), ""),
        (hostile.Ending(2, "Error: no.", 1.0, 1 << 28), ""),
        (hostile.Ending(-signal.SIGSEGV, "", 1.0, 1 << 28), "died of signal 11"),
        (hostile.Ending(1, "Traceback (most recent call last):", 1.0, 1 << 28), "traceback"),
        (hostile.Ending(1, "oops", 1.0, 1 << 28), "exit code 1"),
        (hostile.Ending(2, "", 1.0, 1 << 28), "exit code 2"),
        (hostile.Ending(2, "Error: one.\nError: two.", 1.0, 1 << 28), "not one sentence"),
        (hostile.Ending(2, "Error: onnxruntime: Type Error: no.", 1.0, 1 << 28), ""),
        (hostile.Ending(0, "", 11.0, 1 << 28), "11 s"),
        (hostile.Ending(0, "", 1.0, 3 << 30), "3072 MB"),
    ],
)
def test_what_counts_as_a_fault(ending, fault):
    assert ending.fault == fault

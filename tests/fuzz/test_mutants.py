"""Some mutants of each kind of file; `make fuzz MINUTES=30` tries many more. Archives: `tests/packing`."""

import contextlib
import io
import os
import random
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import networks
from fuzz import kinds, run
from fuzz.kinds import KINDS

COUNTS = {
    "onnx": 50, "npz": 8, "tflite": 100, "picture": 150, "mask": 50, "boxes": 100, "coco": 150, "list": 100,
    "plan": 12, "results": 50, "float tflite": 40, "program": 100, "beside": 100,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run.seeds(tmp_path_factory.mktemp("seeds"))


@pytest.mark.parametrize("kind", COUNTS)
def test_mutants_are_refused_in_a_sentence_or_work(kind, made):
    tried, found = run.fuzz(kind, COUNTS[kind], seed=3, made=made)
    assert tried == COUNTS[kind]
    assert not found


def test_mutants_differ_from_the_file_and_are_the_same_again(made):
    assert KINDS.keys() == COUNTS.keys() == made.files.keys()
    for kind, how in KINDS.items():
        some = [how.mutate(made.files[kind][0], random.Random(seed)) for seed in range(30)]
        assert len(set(some)) > 15
        assert some == [how.mutate(made.files[kind][0], random.Random(seed)) for seed in range(30)]


def test_files_that_are_not_changed_are_taken(made, tmp_path):
    """So that what mutants are refused for is the change."""
    for kind, how in KINDS.items():
        words = kinds.prepare(tmp_path, made) | {"FILE": str(tmp_path / how.file)}
        for seed in made.files[kind]:
            Path(words["FILE"]).write_bytes(seed if isinstance(seed, bytes) else seed.SerializeToString())
            line = kinds.MODELS[-1] if kind == "onnx" else how.commands[0]
            line = " ".join(words.get(word, word) for word in line.split())
            with contextlib.redirect_stdout(io.StringIO()):
                assert kinds.attempt(line, quiet=False) is None, kind


def test_most_onnx_mutants_get_beyond_the_parser():
    model = networks.residual_network()
    readable = 0
    for seed in range(50):
        with np.errstate(all="ignore"):
            try:
                onnx.load_model_from_string(KINDS["onnx"].mutate(model, random.Random(seed)))
            except Exception:  # whatever protobuf says
                continue
        readable += 1
    assert readable > 40


FAULTY = {
    "ZeroDivisionError at": "1 / 0",
    "died of SIGKILL": "os.kill(os.getpid(), 9)",
    "Slow at": "while True: pass",
    "MemoryError: 1": "bytearray(b'x') * (1100 << 20)",
    "ValueError at .*no sentence": "raise ValueError('no sentence')",
}


@pytest.mark.parametrize("what", FAULTY)
def test_what_goes_wrong_is_found_and_kept(what, made, monkeypatch, tmp_path):
    """One command in five goes wrong; the others are tried all the same."""
    calls = []

    def attempt(line):
        calls.append(line)
        if len(calls) == 2:
            exec(FAULTY[what], {"os": os})

    monkeypatch.setattr(run, "attempt", attempt)
    if what == "Slow at":  # the others may take their time: another process may have the processor
        monkeypatch.setattr(run, "SECONDS", 2.0)
    tried, found = run.fuzz("coco", 5, seed=0, made=made, finds=tmp_path)
    assert tried == 5
    assert [bool(re.match(what, key)) for key in found] == [True]
    assert sum(path.suffix == ".json" for path in tmp_path.iterdir()) == 1

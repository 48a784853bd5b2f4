"""The process is stopped, or nobody reads what it prints: it ends with its exit code, without a traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest

import networks

LOWBIT = [sys.executable, "-m", "lowbit"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("ending") / "net.onnx"
    path.write_bytes(networks.residual_network().SerializeToString())
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.05, 0.4, 1.2])
def test_a_signal_at_any_moment_ends_it_with_130_and_leaves_nothing(model, number, after, tmp_path):
    """While it starts, imports or works: never a traceback, and no part of a file."""
    command = [*LOWBIT, "quantize", str(model), "-r", "linear4", "-o", str(tmp_path / "o.onnx")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    left = [path.name for path in tmp_path.iterdir()]
    # Python itself starts in the first moments.
    if "Interrupted" not in error and process.returncode != 0:
        assert left in ([], ["o.onnx"])
        return
    assert process.returncode in (0, 130)
    assert "Traceback" not in error
    assert left in ([], ["o.onnx"])
    assert ("already written" in error) == (bool(left) and process.returncode == 130)


WRITING = """
import os, signal, sys, time
from lowbit.ending import ending_quietly
from lowbit.files import write_atomically
with ending_quietly():
    write_atomically(sys.argv[1], b"x")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
"""


def test_what_was_written_is_said(tmp_path):
    command = [sys.executable, "-c", WRITING, str(tmp_path / "done")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == f"Interrupted; already written: {tmp_path / 'done'}.\n"


# A loop without end in ONNX Runtime, where Python hears of no signal.
BUSY = """
import sys, tempfile
from pathlib import Path
import numpy as np
from onnx import TensorProto, helper
from lowbit.ending import ending_quietly
from lowbit.engines import open_session
from lowbit.staging import staged_folder
value = helper.make_tensor_value_info
body = helper.make_graph(
    [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sqrt", ["a"], ["b"])], "body",
    [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("a", TensorProto.FLOAT, [1])],
    [value("on", TensorProto.BOOL, []), value("b", TensorProto.FLOAT, [1])],
)
loop = helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)
graph = helper.make_graph(
    [loop], "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])],
    [helper.make_tensor("yes", TensorProto.BOOL, [], [True])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
folder = Path(sys.argv[1])
with ending_quietly(), tempfile.TemporaryDirectory(dir=folder), staged_folder(folder):
    session = open_session(model.SerializeToString(), threads=1)
    print("ready", flush=True)
    session.run({"x": np.ones(1, np.float32)})
"""


def test_a_runtime_that_never_comes_back_is_left(tmp_path):
    """As in a Loop without end: the second signal ends what the first could not."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, "Interrupted; nothing was written.\n")
    assert list(tmp_path.iterdir()) == []


LIBRARY = """
import os, signal, time
from lowbit.ending import ending_quietly
with ending_quietly():
    try:
        if {interrupted}:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    except KeyboardInterrupt:
        pass
    raise ImportError("not there, or half imported")
"""


@pytest.mark.parametrize(
    ("interrupted", "code", "says"), [(True, 130, "nothing was written"), (False, 1, "ImportError")]
)
def test_errors_that_a_library_makes_of_an_interrupt_are_one(interrupted, code, says):
    command = [sys.executable, "-c", LIBRARY.format(interrupted=interrupted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert says in done.stderr


def test_a_reader_that_goes_away_is_no_error(model):
    command = f"{' '.join(LOWBIT)} inspect {model} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "1")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_few_characters_is_written_to(model, encoding):
    done = subprocess.run(
        [*LOWBIT, "inspect", str(model)],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert b"MACs" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device")
def test_a_full_device_is_said_in_a_sentence(model):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*LOWBIT, "inspect", str(model)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert "cannot be printed" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_while_the_first_modules_are_imported(tmp_path):
    """Those that say how the process ends: slowed down here, as on a busy machine."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os, signal\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'lowbit.ending':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "lowbit", "recipes"],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "Interrupted; nothing was written.\n")

"""The process is stopped, or nobody reads what it prints: it ends with its exit code, without a traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest

import networks
from lowbit.ending import ending_quietly

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
    # Python itself starts in the first moments, and the work may be done by the last.
    started = "Interrupted" in error or process.returncode == 0
    if started:
        assert process.returncode in (0, 130)
        assert "Traceback" not in error
        assert left in ([], ["o.onnx"])
        assert ("already written" in error) == (bool(left) and process.returncode == 130)
    else:
        assert after < 0.4
        assert left == []


def test_what_was_written_is_said(model, tmp_path, capsys):
    from lowbit import files

    with pytest.raises(SystemExit) as caught, ending_quietly():  # noqa: PT012 - the block is what is interrupted
        files.write_atomically(tmp_path / "done", b"x")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    files.written.clear()
    assert caught.value.code == 130
    assert f"already written: {tmp_path / 'done'}" in capsys.readouterr().err


def test_errors_that_a_library_makes_of_an_interrupt_are_one(capsys):
    with pytest.raises(SystemExit) as caught, ending_quietly():  # noqa: PT012 - the block is what is interrupted
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("half imported") from None
    assert caught.value.code == 130
    assert "nothing was written" in capsys.readouterr().err
    with pytest.raises(ImportError), ending_quietly():
        raise ImportError("truly missing")


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

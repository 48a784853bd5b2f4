"""Processes that are killed, disks that are full, folders that cannot be written, odd names: nothing is lost or torn.

A short run; `make faults FAULTS=50` sends each signal to each command that many times, and `FIRST=20` leaves the first
20 of these out, which an earlier run had.
"""

import functools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import networks
from lowbit.formats.opening import unpack_file
from lowbit.keeping import INDEX, KEPT

COUNT = int(os.environ.get("FAULTS", "1"))
FIRST = int(os.environ.get("FIRST", "0"))
LONG = "FAULTS" in os.environ
SEED = int(os.environ.get("SEED", "0"))
OUTPUTS = {"quantize": "out.onnx", "pack": "out.lowbit", "compare": "out", "search": "out.onnx"}
PATIENCE = 1200 if LONG else 120  # seconds: others may use the machine too
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS = (
    [(name, number) for name in OUTPUTS for number in SIGNALS]
    if LONG
    else [("quantize", signal.SIGTERM), ("pack", signal.SIGKILL), ("compare", signal.SIGKILL)]
)
undisturbed: dict[str, bytes] = {}  # what commands wrote that nobody stopped
REPORTS = ("report.html", "results.csv", "results.json")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "net.onnx").write_bytes(networks.residual_network().SerializeToString())
    np.savez(folder / "data.npz", x=networks.inputs(8))
    return folder


def command(name, inputs, output):
    """A command line that takes a few seconds; all of them write `output`."""
    data = inputs / "data.npz"
    given = {
        "quantize": ("quantize", inputs / "net.onnx", "-r", "cluster3", "-o", output),
        "pack": ("pack", inputs / "net.onnx", "--size", 3000, "--calibration", data, "--effort", "fast", "--resume",
                 "-o", output),
        "compare": ("compare", inputs / "net.onnx", "--data", data, "--recipes", "linear4", "--runs", 0, "--resume",
                    "--engine", "onnxruntime", "--out", output),
        "search": ("search", inputs / "net.onnx", "--data", data, "--recipes", "linear4,linear8", "--effort", "fast",
                   "--max-drop", 50, "--time", "2s", "--resume", "-o", output),
    }  # fmt: skip
    return [sys.executable, "-m", "lowbit", *map(str, given[name])]


def ended(line, **options):
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE, **options)


def contents(place):
    """Files by name, a single file too."""
    files = [place] if place.is_file() else sorted(place.rglob("*")) if place.exists() else []
    return {str(path.relative_to(place.parent)): path.read_bytes() for path in files if path.is_file()}


def whole(name, place):
    """Whether an output is what its command writes."""
    if name in ("quantize", "search"):
        import onnx

        onnx.checker.check_model(onnx.load(place))
    elif name == "pack":
        unpack_file(place)
    else:
        results = json.loads((place / "results.json").read_text())
        assert {path.name for path in place.iterdir()} == {*REPORTS, *(row["file"] for row in results["rows"])}


@pytest.fixture(scope="module")
def duration(inputs, tmp_path_factory):
    """Seconds that a command takes; in the short run a guess, which may be too short or too long."""

    @functools.cache
    def taken(name):
        if not LONG:
            return {"quantize": 1.6, "pack": 2.5, "compare": 5.0, "search": 4.0}[name]
        output = tmp_path_factory.mktemp(name) / OUTPUTS[name]
        start = time.monotonic()
        done = ended(command(name, inputs, output))
        assert done.returncode == 0, done.stderr
        if name in ("quantize", "pack"):  # searches end by the clock, and a comparison has times in it
            undisturbed[name] = output.read_bytes()
        return time.monotonic() - start

    return taken


@pytest.mark.parametrize("round", range(FIRST, COUNT))
@pytest.mark.parametrize(("name", "number"), KILLS)
def test_a_killed_run_leaves_the_old_or_the_new(inputs, duration, name, number, round, tmp_path):
    rng = random.Random(f"{SEED} {name} {number} {round}")
    output = tmp_path / OUTPUTS[name]
    old = {OUTPUTS[name]: b"old"}
    if name == "compare":
        output.mkdir()
        old = {f"out/{file}": b"old" for file in (*REPORTS, "net-float.onnx")}
    for path, text in old.items():
        (tmp_path / path).write_bytes(text)
    before = contents(inputs)
    line = command(name, inputs, output)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # Half of the times near the end, where files are written.
    time.sleep(duration(name) * (rng.uniform(0.7, 1.05) if rng.random() < 0.5 else rng.random()))
    process.send_signal(number)
    _, error = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in error
    found = contents(output)
    hidden = [path.name for path in tmp_path.rglob(".*") if not path.name.startswith(KEPT)]
    visible = {path: text for path, text in found.items() if "/." not in path}
    if visible != old:
        shown = name != "compare" or "out/results.json" in visible
        assert shown or any(path.endswith(".whole") for path in hidden)
        if shown and not hidden:
            whole(name, output)
    if number != signal.SIGKILL and process.returncode in (0, 130):
        assert hidden == []
    assert contents(inputs) == before
    if LONG or name == "pack":
        assert ended(line).returncode == 0
        assert [path.name for path in tmp_path.rglob(".*")] == []
        if name == "compare":
            assert (output / "net-float.onnx").read_bytes() != b"old"
        whole(name, output)
        if name in undisturbed:
            assert output.read_bytes() == undisturbed[name]


def full_disk(size):
    """A place to write that is soon full; skips where it cannot be made."""
    place = Path(tempfile.mkdtemp(prefix="full-"))
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        shutil.rmtree(place)
        pytest.skip("only root can mount")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False)
    if done.returncode != 0:
        shutil.rmtree(place)
        pytest.skip("nothing can be mounted here")
    return place


@pytest.mark.parametrize("size", ["4k", "64k", "1m"] if LONG else ["4k"])
def test_a_full_disk(inputs, size):
    place = full_disk(size)
    try:
        for name in OUTPUTS if LONG else ("compare",):
            done = ended(command(name, inputs, place / OUTPUTS[name]))
            assert done.returncode in (0, 2), done.stderr
            assert "Traceback" not in done.stderr
            assert [path.name for path in place.rglob(".*") if not path.name.startswith(KEPT)] == []
            # With --resume what was finished is kept for another run, and nothing torn.
            pieces = [path for folder in place.rglob(f"{KEPT}*") for path in folder.iterdir()]
            assert all((piece / INDEX).stat().st_size for piece in pieces)
    finally:
        subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(place)


@pytest.mark.parametrize("limit", [100, 20_000] if LONG else [20_000])
def test_a_file_that_may_not_grow_leaves_results_on_the_screen(inputs, limit, tmp_path):
    """RLIMIT_FSIZE: writing fails as on a full disk, for each file above the limit."""
    output = tmp_path / "out"
    done = ended(
        command("compare", inputs, output),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "cannot write: File too large" in done.stderr
    assert {path.name for path in output.glob("*")} <= {KEPT}  # what --resume goes on from
    if limit > 10_000:  # models fit, the report does not
        assert "linear4" in done.stdout
        (kept,) = tmp_path.glob("lowbit-results-*")
        assert str(kept) in done.stderr
        assert (kept / "net-linear4.onnx").exists()


def test_a_folder_that_may_not_be_written(inputs, tmp_path):
    if os.geteuid() == 0:
        folder = "/proc/1"  # where not even root makes files
        if not os.path.isdir(folder):
            pytest.skip("root may write anywhere")
    else:
        folder = str(tmp_path / "closed")
        os.mkdir(folder, 0o500)
    for name in OUTPUTS if LONG else ("compare",):
        done = ended(command(name, inputs, Path(folder) / OUTPUTS[name]))
        assert done.returncode == 2
        assert "cannot write" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("megabytes", [400, 700, 1000] if LONG else [400])
def test_little_memory_is_a_sentence(inputs, megabytes, tmp_path):
    limit = megabytes << 20
    done = ended(
        command("quantize", inputs, tmp_path / "out.onnx"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr


def test_no_home(inputs, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "USER", "XDG_CACHE_HOME")}
    done = ended(command("pack", inputs, tmp_path / "out.lowbit"), env=environment)
    assert done.returncode == 0, done.stderr


NAMES = (
    "with space",
    "two\nlines",
    "-dash",
    "x" * 250,
    "ü\x1b[2J",
    "a'b\"c$(d)",
    b"\xff\xfe".decode(errors="surrogateescape"),
)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_odd_names(inputs, name, tmp_path, monkeypatch, capsys):
    from test_cli import run

    monkeypatch.chdir(tmp_path)
    model, quantized = f"{name}.onnx", f"{name[:-2]}q.onnx"
    shutil.copy(inputs / "net.onnx", os.path.join(".", model))
    for line in (
        ("quantize", "-r", "linear4", "-o", f"./{quantized}", "--", model),
        ("inspect", "--", model),
        ("pack", "-o", f"./{name[:-4]}.lowbit", "--", model),
        ("unpack", "-o", f"./{name[:-3]}u.onnx", "--", f"{name[:-4]}.lowbit"),
    ):
        code, out, error = run(*line, capsys=capsys)
        assert code == 0, error
        assert "\x1b" not in out + error
    assert (tmp_path / f"{name[:-3]}u.onnx").read_bytes() == (inputs / "net.onnx").read_bytes()
    assert len(list(tmp_path.iterdir())) == 4

"""How much memory a file needs, each measured in a fresh process, so that no file pays for or profits from another.

The probe imports the runtime, notes its resident memory, loads the model, runs one inference, and reports the growth:
`load_bytes` once the model is ready, `peak_bytes` the highest point from the start of loading to the end of the
inference (unpacking weights while loading counts).
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from lowbit.engines.bounds import EXIT_CODES

PROBE = "lowbit.measurement.memory_probe"


@dataclass(frozen=True)
class Memory:
    """Growth of resident memory in bytes; `None`, with the reason in `note`, where it could not be measured.

    Attributes:
        load_bytes: once the file is ready to run.
        peak_bytes: the most until the first answers were there.
        note: why it is not known, or what else a reader should know.
        killed: name of the signal that the process died of, which is how runtimes end on some damaged files.
        excess: of what it asked for far more than a file of its size should: memory or time.
        load_ms: how long it took until the file was ready: reading, unpacking weights, preparing kernels.
    """

    load_bytes: int | None
    peak_bytes: int | None
    note: str = ""
    killed: str = ""
    excess: str = ""
    load_ms: float | None = None


def memory(
    model: bytes | Path,
    inputs: NDArray[Any] | Mapping[str, NDArray[Any]],
    *,
    engine: str = "onnxruntime",
    threads: int = 1,
    timeout: float = 300.0,
) -> Memory:
    """Load `model` and run it once in a new process on `inputs`, by name or for the only input.

    Never raises for what the probe does.
    """
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        path = model
        if isinstance(path, bytes):
            (Path(folder) / "model.onnx").write_bytes(path)
            path = Path(folder) / "model.onnx"
        arrays = Path(folder) / "inputs.npz"
        named = inputs if isinstance(inputs, Mapping) else {"x": inputs}
        with zipfile.ZipFile(arrays, "w") as archive:  # np.savez takes no name such as "file"
            for name, x in named.items():
                with archive.open(f"{quote(name, safe='')}.npy", "w") as file:
                    np.lib.format.write_array(file, np.asarray(x), allow_pickle=False)
        # The new process must find the lowbit that is running, installed or not, and nothing in the current folder.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, "-P", "-m", PROBE, str(path), engine, str(threads), str(arrays)]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Memory(None, None, f"memory was not measured: {error}")
    return _parse(done.returncode, done.stdout, done.stderr)


def _parse(code: int, out: str, err: str) -> Memory:
    try:
        if code != 0:
            raise ValueError
        answer = json.loads(out.strip().splitlines()[-1])
        load, peak = (None if answer[key] is None else int(answer[key]) for key in ("load_bytes", "peak_bytes"))
        return Memory(load, peak, str(answer.get("note", "")), load_ms=answer.get("load_ms"))
    except (ValueError, KeyError, IndexError, TypeError):
        lines = err.strip().splitlines() or ["no answer"]
        killed = signal.Signals(-code).name if code < 0 else ""
        excess = next((what for what, ended in EXIT_CODES.items() if code == ended), "")
        note = f"memory was not measured: {killed or excess or lines[-1]}"
        return Memory(None, None, note, killed, excess)

"""The fresh process of `lowbit.measurement.memory`: MODEL ENGINE THREADS INPUTS.npz -> one line of JSON."""

import contextlib
import importlib
import json
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from lowbit.engines import engine_version, fed, open_session
from lowbit.engines.bounds import bounds_of, watched_process


def main(model: str, engine: str, threads: int, inputs: str) -> dict[str, int | float | str | None]:
    """Load, run once, and return by how many bytes the process grew, and how long loading took."""
    with np.load(inputs, allow_pickle=False) as archive:
        arrays = {unquote(name): archive[name] for name in archive.files}
    engine_version(engine)  # imports the runtime, which is not part of the model's memory
    watched_process(bounds_of(Path(model)), arrays)
    exact = _forget_peak()
    start = resident()
    begun = time.perf_counter()
    session = open_session(Path(model), engine=engine, threads=threads)
    load_ms = 1000 * (time.perf_counter() - begun)
    loaded = resident()
    session.run(fed(session, arrays))
    top = peak()
    if start is None or loaded is None or top is None:
        return {
            "load_bytes": None,
            "peak_bytes": None,
            "load_ms": load_ms,
            "note": "this system does not tell how much memory a process uses",
        }
    note = "" if exact else "the peak may include importing the runtime"
    grown = {"load_bytes": max(0, loaded - start), "peak_bytes": max(0, top - start)}
    return {**grown, "load_ms": load_ms, "note": note}


def resident() -> int | None:
    """Resident bytes now; where only the highest point is known (macOS), that."""
    known = _status("VmRSS")
    return peak() if known is None else known


def peak() -> int | None:
    """Highest resident bytes: VmHWM, else `ru_maxrss` (kilobytes, on macOS bytes)."""
    known = _status("VmHWM")
    if known is not None:
        return known
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return None
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _status(key: str) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None


def _forget_peak() -> bool:
    """Reset the kernel's high-water mark, so that imports do not hide a small model."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return True
    return False


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])))

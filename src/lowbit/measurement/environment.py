"""Which machine and which versions made the numbers."""

import contextlib
import importlib.metadata
import os
import platform

from lowbit.engines import ENGINES
from lowbit.formats.record import SEED
from lowbit.measurement.results import Environment
from lowbit.processor import kernels, processor

BEFORE, BEHIND = ("lowbit", "numpy", "onnx", "onnx-ir"), ("torch", "pillow")


def environment() -> Environment:
    """The machine and the installed versions; what belongs to one run is added by `measure`."""
    cpu, flags = processor()
    return Environment(
        cpu=cpu,
        cpu_flags=flags,
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages=versions(),
        seeds={"samples": SEED},
        kernels=kernels(),
    )


def versions() -> dict[str, str]:
    """Installed versions of the packages that can move a number."""
    installed: dict[str, str] = {}
    for name in (*BEFORE, *(engine.package.replace("_", "-") for engine in ENGINES.values()), *BEHIND):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed

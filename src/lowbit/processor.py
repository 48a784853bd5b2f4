"""The processor: its name, the instruction sets that matter for 8-bit arithmetic, and work spread over its cores."""

import contextlib
import ctypes
import functools
import os
import platform
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from threadpoolctl import threadpool_info, threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")

# Instruction sets that decide how fast 8-bit arithmetic is, and on x86 without VNNI even how exact.
FLAGS = (
    "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16",
    "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


# The widest vectors come first: kernels of sums are chosen by them.
VECTORS = ("avx512f", "avx2", "sve2", "sve", "asimd")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def single_thread_blas() -> Iterator[None]:
    """Limit numpy's matrix products to one thread each; a context manager, and a decorator.

    lowbit itself runs batches of images in parallel. If the products inside used threads too, these would wait for each
    other: rounding MobileNetV2 took 3.5 times as long on 2 cores.
    """
    with threadpool_limits(1, user_api="blas"):
        yield


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int = 1
) -> Iterator[Result]:
    """`map(function, items)` on several threads, with the results in order.

    Args:
        function: called once for each item, in any thread.
        items: read as they are needed.
        threads: how many work at the same time; with 1, the calling thread does.
        ahead: how many more results than threads may be pending, which bounds the memory they take.

    Raises:
        Exception: what `function` raised, when its result is due; later calls are cancelled.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="lowbit") as pool:
        pending: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(waiting, threads + ahead))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can (glibc).

    It keeps freed blocks for later requests, between small ones that are still in use; after the large tensors of a
    session, they are as large as the network's weights.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def processor() -> tuple[str, tuple[str, ...]]:
    """The processor's name, and which of `FLAGS` it has."""
    with contextlib.suppress(OSError):
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return parse_sysctl(
                subprocess.run(
                    ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"],
                    capture_output=True, text=True, timeout=5, check=False,
                ).stdout
            )  # fmt: skip
    return platform.processor() or platform.machine() or "unknown", ()


@functools.cache
def kernels() -> str:
    """What sums of floats are computed by: machine, widest vectors, numpy's BLAS kernel ("x86_64 avx512f SkylakeX").

    The last is what `OPENBLAS_CORETYPE` says, if it is set; it is missing where numpy has another BLAS than OpenBLAS.
    """
    _, flags = processor()
    loaded = [library for library in threadpool_info() if library["user_api"] == "blas"]
    # Other packages, such as torch, may have brought their own.
    loaded.sort(key=lambda library: "numpy" not in library["filepath"])
    blas = str(loaded[0].get("architecture") or loaded[0]["internal_api"]) if loaded else ""
    return " ".join(filter(None, (platform.machine(), next((one for one in VECTORS if one in flags), ""), blas)))


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and flags from /proc/cpuinfo, of x86 (`flags`) or ARM (`Features`)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    words = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or fields.get("Hardware") or platform.machine()
    return name or "unknown", tuple(flag for flag in FLAGS if flag in words)


def parse_sysctl(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and flags from macOS `sysctl machdep.cpu hw.optional`."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    words = set(
        f"{fields.get('machdep.cpu.features', '')} {fields.get('machdep.cpu.leaf7_features', '')}".lower().split()
    )
    arm = {"asimddp": "hw.optional.arm.FEAT_DotProd", "i8mm": "hw.optional.arm.FEAT_I8MM"}
    words |= {flag for flag, key in arm.items() if fields.get(key) == "1"}
    return fields.get("machdep.cpu.brand_string", "unknown"), tuple(flag for flag in FLAGS if flag in words)

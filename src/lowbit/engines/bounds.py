"""What a run may take that only a run knows: memory for sizes that are computed from values, time in loops.

ONNX Runtime is bounded in every run. OpenVINO answers with numbers from nowhere where memory is refused, and leaves no
loop, so files of unknown origin are tried in a process of their own first, which `watched_process` ends.

What can be counted from shapes is, before anything runs (`lowbit.graph.memory`). A Loop whose tensor doubles, an Expand
to a size that is computed, a Scan in a Loop in a Loop look small until they run, so the system refuses memory beyond
what the file and its inputs explain, and loops that go on too long are ended.
"""

import contextlib
import functools
import importlib
import mmap
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.errors import LowbitError, ModelError
from lowbit.graph.light_model import LightModel
from lowbit.switches import LARGE, is_on

# Bytes that a run may add to those in use; and for each byte of the file and of the inputs, if that is more.
LEAST_BYTES, PER_BYTE = 1 << 29, 256
# Seconds that a run with loops may take; and bytes of the file and of the inputs that each explain another second.
LEAST_SECONDS, PER_SECOND = 4.0, 10**6
OPENING = 1.5  # times as long may it take to open a file and run it: a runtime may run loops when it opens it, too
EXIT_CODES = {"memory": 77, "time": 78}  # of a process that asked for too much
POLL = 0.05  # seconds between two looks at the clock
# Operators that may go on for ever, and names of other files with weights, as they stand in a file: length, then text.
LOOPS = (b'"\x04Loop', b'"\x04Scan')
LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f])")
MOST_SEARCHED = 1 << 26  # bytes of a file; what is larger may take long anyway
# What runtimes and frameworks say of an allocation that the system refuses.
REFUSED = ("memory", "alloc")


@dataclass(frozen=True)
class Bounds:
    """What explains the size of a run.

    Attributes:
        stored: bytes of the file and of its weights.
        loops: whether it may have operators that go on for ever.
    """

    stored: int
    loops: bool

    def bytes(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> int:
        """How many bytes a run on these inputs may add to those in use."""
        return max(LEAST_BYTES, PER_BYTE * (self.stored + _size(inputs)))

    def seconds(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> float:
        """How long it may take, if there are loops."""
        return LEAST_SECONDS + (self.stored + _size(inputs)) / PER_SECOND


def bounds_of(model: bytes | Path | str | LightModel) -> Bounds:
    """What explains the size of a model's runs; a file that cannot be read has none, and is refused elsewhere."""
    if isinstance(model, LightModel):
        return Bounds(
            len(model.content) + sum(each.nbytes for each in model.weights.values()), _has_loops(model.content)
        )
    if isinstance(model, bytes):
        return Bounds(len(model), _has_loops(model))
    path = Path(model)
    with contextlib.suppress(OSError):
        size = path.stat().st_size
        if size > MOST_SEARCHED or path.suffix == ".tflite":  # whose operators have numbers
            return Bounds(size, loops=True)
        content = path.read_bytes()
        names = {content[at.end() : at.end() + at[1][0]] for at in LOCATION.finditer(content)}
        beside = (path.parent / name.decode(errors="replace") for name in names)
        return Bounds(size + sum(each.stat().st_size for each in beside if each.is_file()), _has_loops(content))
    return Bounds(0, loops=False)


def _has_loops(content: bytes) -> bool:
    return any(each in content for each in LOOPS)


def _size(inputs: Mapping[str, np.ndarray[Any, Any]]) -> int:
    return sum(each.nbytes for each in inputs.values())


class ExcessError(ModelError):
    """A file asks for far more memory or time than its size explains, which no other runtime or format would mend."""


def too_much(what: str, where: str) -> ExcessError:
    """What is said of a file that asks for too much."""
    return ExcessError(
        f"asks for far more {what} than a file of its size should.",
        where=where,
        remedy=f"Is it damaged? If that is as it should be, set {LARGE}=1.",
    )


_repeated = threading.local()


@contextlib.contextmanager
def repeated() -> Iterator[None]:
    """Inside, runs of this thread have no bounds: they are timed, on inputs that went through before."""
    _repeated.now = True
    try:
        yield
    finally:
        _repeated.now = False


def is_repeated() -> bool:
    """Whether runs have no bounds now."""
    return getattr(_repeated, "now", False)


_lock = threading.Lock()
_limits: list[tuple[int, int]] = []  # of the process, before each part that is bounded now: the first is its own


@dataclass(frozen=True)
class _Limit:
    """A limit that holds.

    Attributes:
        resource: the module, which Windows does not have.
        most: bytes of data that the process may have.
        own: whether another limit, which the user set, is not reached before.
    """

    resource: Any
    most: int
    own: bool


@contextlib.contextmanager
def bounded_memory(room: int, where: str) -> Iterator[int | None]:
    """Inside, the process may grow by so many bytes only, where the system has such limits (Linux).

    Parts that overlap, one in another or in several threads, share the limit of the one that allows most.

    Yields:
        How many bytes of data it may have; None where there is no limit.

    Raises:
        ModelError: it was not enough.
    """
    limit = None if is_on(LARGE) else _limited(room)
    try:
        yield None if limit is None else limit.most
    except Exception as error:
        said = isinstance(error, MemoryError) or any(word in str(error).lower() for word in REFUSED)
        if limit is not None and limit.own and said and not isinstance(error, LowbitError):
            raise too_much("memory", where) from error
        raise
    finally:
        if limit is not None:
            with _lock:
                before = _limits.pop()
                if not _limits:
                    limit.resource.setrlimit(limit.resource.RLIMIT_DATA, before)


def watched_process(bounds: Bounds, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """End this process once it took more memory than a run on these inputs may, or more time where there are loops."""
    if is_on(LARGE) or not Path("/proc/self/statm").exists():
        return
    most = _in_use()[1] + bounds.bytes(inputs)
    seconds = time.process_time() + OPENING * bounds.seconds(inputs)

    def watch() -> None:
        while True:
            if _in_use()[1] > most:
                os._exit(EXIT_CODES["memory"])
            if bounds.loops and time.process_time() > seconds:
                os._exit(EXIT_CODES["time"])
            time.sleep(POLL)

    threading.Thread(target=watch, daemon=True).start()


@functools.cache
def _statm(process: int) -> int:
    """What the system says of this process, opened once: there may be thousands of runs a second."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def _in_use() -> tuple[int, int]:
    """Bytes of addresses that the process has, and of data among them."""
    pages = os.pread(_statm(os.getpid()), 200, 0).split()
    return int(pages[0]) * mmap.PAGESIZE, int(pages[5]) * mmap.PAGESIZE


def _limited(room: int) -> _Limit | None:
    """Limit the process; None where that cannot be."""
    try:
        resource: Any = importlib.import_module("resource")
        addresses, data = _in_use()
    except (ImportError, OSError, ValueError, IndexError):
        return None
    with _lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        first = _limits[0] if _limits else (soft, hard)
        most = data + room
        if _limits and soft != resource.RLIM_INFINITY:
            most = max(most, soft)
        for bound in (first[0], hard):
            most = most if bound == resource.RLIM_INFINITY else min(most, bound)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
        _limits.append(first)
    users = resource.getrlimit(resource.RLIMIT_AS)[0]
    return _Limit(resource, most, own=users == resource.RLIM_INFINITY or users - addresses > room)


@contextlib.contextmanager
def bounded_loops(seconds: float, most: int | None, stop: Callable[[], None], where: str) -> Iterator[None]:
    """Inside, work is told to stop after some seconds, or shortly before there is no more memory.

    Seconds of the clock and of the processor, since others use it too. Memory that grows by many small pieces is better
    not refused: runtimes are not ready for that everywhere.

    Raises:
        ModelError: it was, and did.
    """
    done = threading.Event()
    over: list[str] = []

    def watch() -> None:
        clock, processor = time.monotonic() + seconds, time.process_time() + seconds
        while not done.wait(POLL):
            if time.monotonic() > clock and time.process_time() > processor:
                over.append("time")
            elif most is not None and _in_use()[1] > most - LEAST_BYTES // 4:
                over.append("memory")
            if over:
                stop()
                return

    if is_on(LARGE):
        yield
        return
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except Exception as error:
        if over:
            raise too_much(over[0], where) from error
        raise
    finally:
        done.set()

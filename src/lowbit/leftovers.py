"""Temporary files and folders beside an output, and what runs that were killed left of them.

All are called `.lowbit-` and eight random characters. The run that makes one holds a lock on it (`flock`), which the
system takes back when the process ends, however it ends. So whoever gets the lock knows that nobody needs what it is
on; a process id would not do, since ids are used again, and containers that share a folder have their own.

Makers hold the lock of the folder until they have their own, so that nothing is taken for a leftover before. Where a
file system knows no locks, nothing is taken for one.
"""

import contextlib
import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    fcntl = importlib.import_module("fcntl")
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
PREFIX = ".lowbit-"
PART, WHOLE = ".part", ".whole"
# In a folder the lock is on this file: the folder's own lock is for those who write into it.
OWNER = ".owner"
stages: set[Path] = set()  # of this process: who ends it from elsewhere removes them
NAME = re.compile(rf"{re.escape(PREFIX)}[a-z0-9_]{{8}}({re.escape(PART)}|{re.escape(WHOLE)})?")


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside, no other run makes or removes temporary files in a folder; parts that nobody needs are removed first."""
    with contextlib.ExitStack() as stack:
        locked = False
        with contextlib.suppress(OSError):  # a folder that may be written and not read, or a system without locks
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            _flock(handle, wait=True)
            locked = True
        if locked:
            for path in leftovers(folder):
                if path.name.endswith(PART):
                    path.unlink(missing_ok=True)
        yield


def leftovers(folder: Path) -> Iterator[Path]:
    """What killed runs left in a folder that is `held`."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if NAME.fullmatch(entry.name)]
    for entry in found:
        place = Path(entry)
        if entry.is_dir(follow_symlinks=False):
            if _nobody_holds(place / OWNER):
                yield place
        elif entry.is_file(follow_symlinks=False) and entry.name.endswith(PART) and _nobody_holds(place):
            yield place


def make_part(folder: Path) -> tuple[int, Path]:
    """A new file in a folder, open and locked: what is to become a file of another name."""
    with held(folder):
        handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=PART, dir=folder)
        lock(handle)
    return handle, Path(name)


@contextlib.contextmanager
def made_stage(folder: Path) -> Iterator[Path]:
    """A new folder in a folder that is `held`; it is locked until the block ends, and stays."""
    stage = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
    handle = os.open(stage / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    stages.add(stage)
    try:
        lock(handle)
        yield stage
    finally:
        stages.discard(stage)
        os.close(handle)


def lock(handle: int) -> None:
    """Lock a new file, until it is closed or the process ends."""
    with contextlib.suppress(OSError):
        _flock(handle)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that is possible."""
    shutil.rmtree(folder, ignore_errors=True)


def _flock(handle: int, *, wait: bool = False) -> None:
    """Take the lock of a file or folder, or raise OSError: somebody has it, or there are no locks."""
    if fcntl is None:
        raise OSError("this system has no such locks")
    fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _nobody_holds(path: Path) -> bool:
    if fcntl is None:
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:  # a folder whose maker was killed before it could lock it
        return True
    except OSError:
        return False
    try:
        _flock(handle)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True

"""How the process ends when someone stops it, or stops reading from it: at once, quietly, and with a true sentence."""

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from lowbit import files, keeping, leftovers
from lowbit.printable import printable

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 1  # as rich, which prints the tables, has it
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds until a runtime that does not come back, from a loop without end in a model say, is left where it is; a second
# signal does that at once. Signals closer than that are one.
PATIENCE, AT_ONCE = 10.0, 0.5


class _Stop:
    """What a signal does: the same as Ctrl-C, which is remembered, since libraries turn it into errors of their own."""

    def __init__(self) -> None:
        self.asked = 0.0  # when Python last did as a signal says, by the monotonic clock

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = time.monotonic()
        raise KeyboardInterrupt


@contextlib.contextmanager
def _watched(stop: _Stop) -> Iterator[None]:
    """Inside, a process also ends where Python never gets to do as a signal says, since a runtime is at work."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        watcher.join()
        os.close(reader)


def _watch(reader: int, stop: _Stop) -> None:
    """Wait for signals, each a byte, until the other end is closed; leave when Python does not do as one says."""
    while os.read(reader, 1):
        came = time.monotonic()
        while stop.asked < came - AT_ONCE and time.monotonic() < came + PATIENCE:
            if select.select([reader], [], [], AT_ONCE)[0]:
                if not os.read(reader, 1):
                    return
                if time.monotonic() > came + AT_ONCE:
                    break
        if stop.asked < came - AT_ONCE:
            _leave()


def _leave() -> None:
    """End the process from another thread than the one that works, as tidily as that is possible."""
    sys.stderr.write(f"Interrupted; {printable(_written())}.\n")
    for stage in tuple(leftovers.stages):
        leftovers.remove(stage)
    tidy = threading.Thread(target=atexit._run_exitfuncs, daemon=True)  # removes temporary folders
    tidy.start()
    tidy.join(PATIENCE)
    os._exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def ending_quietly() -> Iterator[None]:
    """Inside, SIGTERM is Ctrl-C; both end the process with exit code 130, and a reader that went away with 1."""
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        with _watched(stop):
            yield
    except BrokenPipeError:
        # What is still to be written on exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_PIPE_CLOSED)
    except (KeyboardInterrupt, SystemExit, Exception) as error:
        if not stop.asked and not isinstance(error, KeyboardInterrupt):
            raise
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        sys.stderr.write(f"Interrupted; {printable(_written())}.\n")
        # Python notes that a text it executed was interrupted, as dataclasses are made of some, and then ends by SIGINT
        # whatever the exit code; the next text takes the note back.
        exec("")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _written() -> str:
    # What was to become a part of whole results has gone with them.
    there = [str(path) for path in files.written if path.exists()]
    said = f"already written: {', '.join(there)}" if there else "nothing was written"
    return f"{said}; --resume goes on with what is finished" if any(map(Path.exists, keeping.kept)) else said

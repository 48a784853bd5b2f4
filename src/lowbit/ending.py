"""How the process ends when someone stops it, or stops reading from it: at once, quietly, and with a true sentence."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from lowbit import files, keeping
from lowbit.printable import printable

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 1  # as rich, which prints the tables, has it
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stop:
    """What a signal does: the same as Ctrl-C, which is remembered, since libraries turn it into errors of their own."""

    asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def ending_quietly() -> Iterator[None]:
    """Inside, SIGTERM is Ctrl-C; both end the process with exit code 130, and a reader that went away with 1."""
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
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

"""`lowbit` and `python -m lowbit`: from the first import on an interrupt ends the process as `lowbit.ending` says."""

import os
import signal


def _stopped(number: int, frame: object) -> None:
    """What an interrupt does until `lowbit.ending`, whose imports take a while on a busy machine, is there."""
    os.write(2, b"Interrupted; nothing was written.\n")
    os._exit(130)


for _number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_number, _stopped)

from lowbit.ending import SIGNALS, ending_quietly  # noqa: E402


def main() -> None:
    """Run the command line."""
    try:
        with ending_quietly():
            from lowbit.cli import main as run

            run()
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # all is said and done; Python only has to end


if __name__ == "__main__":
    main()

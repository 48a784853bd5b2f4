"""`lowbit` and `python -m lowbit`: from the first import on an interrupt ends the process as `lowbit.ending` says."""

import signal

from lowbit.ending import SIGNALS, ending_quietly


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

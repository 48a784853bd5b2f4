"""Switches for a whole run: set by the command line or the environment, seen by the processes that it starts."""

import os

DEBUG = "LOWBIT_DEBUG"  # errors come with where they arose, and with what a runtime said in its own words
QUIET = "LOWBIT_QUIET"  # no progress at all
LARGE = "LOWBIT_LARGE"  # models that ask for far more memory or time than their size explains are meant
VERBOSE = "LOWBIT_VERBOSE"  # each part of the work when it is done


def is_on(switch: str) -> bool:
    """Whether a switch is set, to anything but 0."""
    return os.environ.get(switch, "") not in ("", "0")


def turn_on(switch: str) -> None:
    """Set a switch, for the processes that this one starts too."""
    os.environ[switch] = "1"

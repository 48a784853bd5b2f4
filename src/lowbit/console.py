"""How commands talk: progress, JSON, and errors in one sentence."""

import json
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from lowbit.errors import LowbitError
from lowbit.printable import printable
from lowbit.switches import DEBUG, QUIET, VERBOSE, is_on

if TYPE_CHECKING:
    from lowbit.progress import Progress


def fail(error: LowbitError) -> NoReturn:
    """Print an error as one sentence, or as JSON where that was asked for, and exit with its code."""
    if "--json" in sys.argv:
        body = {"error": type(error).__name__, "what": error.what, "where": error.where, "remedy": error.remedy}
        sys.stdout.write(json.dumps(body) + "\n")
    if is_on(DEBUG):
        show_traceback(type(error), error, error.__traceback__)
    sys.stderr.write(f"Error: {error}\n")
    sys.exit(error.exit_code)


def show_traceback(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Print a traceback on standard error; what it quotes is shown, not obeyed."""
    import traceback

    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, where)), keep="\n"))


def say(sentence: str, *, error: bool = False) -> None:
    """Print a line on standard output or standard error; control characters in it are shown, not obeyed."""
    (sys.stderr if error else sys.stdout).write(printable(sentence) + "\n")


def progress_bar(quiet: bool) -> "AbstractContextManager[Progress]":
    """How far a command is, on standard error: a bar on a terminal, else a line now and then.

    Args:
        quiet: show nothing, unless --verbose asks for everything; --quiet always does.
    """
    from lowbit.reports.progress import bar
    from lowbit.reports.verbose import verbose

    told = is_on(VERBOSE)
    shown = bar(sys.stderr, quiet=(quiet and not told) or is_on(QUIET))
    return verbose(shown) if told else shown


def print_json(data: object) -> None:
    """Data as JSON on standard output."""
    sys.stdout.write(json.dumps(data, indent=1) + "\n")

"""The command line: one table of commands, and what happens to errors. Heavy imports wait until they are needed."""

import io
import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from lowbit import __version__
from lowbit.commands import (
    archives,
    diagnosing,
    explaining,
    exporting,
    looking,
    measuring,
    preparing,
    quantizing,
    searching,
    training,
)
from lowbit.commands.groups import Command, flat
from lowbit.console import fail, say, show_traceback
from lowbit.ending import EXIT_INTERRUPTED, ending_quietly
from lowbit.errors import LowbitError, OutputError
from lowbit.printable import printable
from lowbit.switches import DEBUG, QUIET, VERBOSE, is_on, turn_on

# In the order of `lowbit --help`; a command is called what its function is called.
COMMANDS: tuple[Callable[..., None], ...] = (
    looking.inspect,
    preparing.prepare,
    looking.plan,
    quantizing.quantize,
    searching.search,
    measuring.measure,
    measuring.compare,
    measuring.demo,
    diagnosing.diagnose,
    archives.pack,
    archives.unpack,
    exporting.export,
    looking.recipes,
    explaining.explain,
    training.fetch,
    training.train,
)

app = typer.Typer(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its table spends half of 80 columns on names of types
    help="Quantize trained networks, and measure what that costs on the files written.",
)


def _print_version(asked: bool) -> None:
    """The version, and nothing else is done."""
    if asked:
        say(f"lowbit {__version__}")
        raise typer.Exit


@app.callback()
def for_all_commands(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress; results and errors stay (LOWBIT_QUIET=1).")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Show each part of the work when it is done, its time, and what was decided (LOWBIT_VERBOSE=1).",
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where errors arise and all that a runtime says (LOWBIT_DEBUG=1)."),
    ] = False,
) -> None:
    """Options of all commands; they come before its name."""
    # Processes that a command starts see these too.
    if debug:
        turn_on(DEBUG)
    if quiet and verbose:
        raise LowbitError("--quiet and --verbose do not go together.", remedy="Leave out one of them.")
    if quiet:
        turn_on(QUIET)
    if verbose:
        turn_on(VERBOSE)
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


for command in COMMANDS:
    app.command(cls=Command, short_help=(command.__doc__ or "").partition("\n\n")[0])(flat(command))


def main() -> None:
    """Run a command; errors for users become one sentence on standard error and an exit code."""
    # Read when numpy is imported, later than here. Batches of images run in parallel; threads inside matrix products
    # would only wait for each other and take as much processor time again.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the character shows another one
    sys.excepthook = show_traceback
    if not is_on(DEBUG):
        # numpy's, of numbers whose squares are beyond float32: what comes of them is judged like all else.
        warnings.simplefilter("ignore", RuntimeWarning)
    with ending_quietly():
        try:
            code = app(standalone_mode=False)
            sys.stdout.flush()
        except LowbitError as error:
            fail(error)
        except BrokenPipeError:
            raise
        except OSError as error:  # of standard output: what files meet is a LowbitError
            fail(OutputError(f"the answer cannot be printed: {error.strerror or error}."))
        except MemoryError:
            fail(LowbitError("there is not enough memory.", remedy="Use fewer samples, or a machine with more."))
        except Exception as error:
            # Typer's own complaints (unknown option, missing argument) know how to show themselves and their exit code.
            if hasattr(error, "show") and hasattr(error, "exit_code"):
                vars(error).update({key: printable(text) for key, text in vars(error).items() if isinstance(text, str)})
                error.show()
                sys.exit(error.exit_code)
            raise
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)


if __name__ == "__main__":
    main()

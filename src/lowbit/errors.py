"""All errors meant for users: what happened, where, and what to do next.

Each part is a sentence of its own, so that a terminal, a log and `--json` can each show it their own way. The command
line turns a `LowbitError` into its `exit_code`; any other exception is a bug and leaves a traceback.
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from lowbit.printable import printable

LINE_BREAK = re.compile(r"\s*\n\s*")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names the closest of some names, to begin a remedy with; empty if none is close."""
    spelled = {each.lower(): each for each in known}
    near = [spelled[each] for each in difflib.get_close_matches(name.lower(), spelled, n=3, cutoff=0.6)]
    return f"Did you mean {' or '.join(near)}? " if near else ""


class LowbitError(Exception):
    """Base of all errors meant for users.

    Args:
        what: what happened, with the value given and the one expected.
        where: the file, node or tensor it happened in; empty if `what` names it already.
        remedy: what the user can do about it.

    >>> try:
    ...     lowbit.load("missing.onnx")
    ... except lowbit.LowbitError as error:
    ...     print(error.where, "|", error.what, "|", error.remedy)
    missing.onnx | there is no such file. | Check the path.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what = LINE_BREAK.sub(" ", what.strip())  # libraries that are quoted write several lines
        self.where = where
        self.remedy = remedy
        super().__init__(f"{where}: {what}" if where else what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" {self.remedy}" if self.remedy else ""
        return printable(f"{place}{self.what}{advice}")


class ModelError(LowbitError):
    """The model file cannot be read, or contains something that lowbit does not quantize.

    >>> lowbit.load(b"no model")
    Traceback (most recent call last):
    lowbit.errors.ModelError: ...
    """


class DataError(LowbitError):
    """Images or labels are missing, unreadable, or do not fit the model.

    >>> lowbit.quantize("model.onnx", "int8", calibration="missing")
    Traceback (most recent call last):
    lowbit.errors.DataError: ...
    """


class SchemeError(LowbitError):
    """A scheme or recipe has impossible hyper-parameters, or meets values that it cannot encode.

    >>> lowbit.parse_recipe("int9")
    Traceback (most recent call last):
    lowbit.errors.SchemeError: ...
    """


class ArchiveError(LowbitError):
    """An archive is damaged, truncated, from a newer version, or claims impossible sizes.

    >>> lowbit.load(lowbit.pack("model.onnx").archive[:-1])
    Traceback (most recent call last):
    lowbit.errors.ArchiveError: ...
    """


class EngineError(LowbitError):
    """A runtime is not installed, or refused a model.

    >>> lowbit.open_session("model.onnx", engine="abacus")
    Traceback (most recent call last):
    lowbit.errors.EngineError: no engine is called 'abacus'. Choose one of: onnxruntime, openvino, litert.
    """


class OutputError(LowbitError):
    """The output cannot be written.

    Attributes:
        kept: a folder elsewhere with what was finished, if there is one.

    >>> lowbit.pack("model.onnx").save("model.zip")
    Traceback (most recent call last):
    lowbit.errors.OutputError: ...
    """

    kept: Path | None = None


class DowngradeError(LowbitError):
    """`--strict`: something that was requested cannot be given. The plan names each tensor and the reason.

    >>> lowbit.quantize("model.onnx", "cluster8", strict=True)
    Traceback (most recent call last):
    lowbit.errors.DowngradeError: ...
    """

    exit_code = 3

"""The values that `measure` and `compare` take: how files are measured, and how the files of a comparison are made."""

from dataclasses import dataclass, field
from pathlib import Path

from lowbit.formats.file_form import FileForm
from lowbit.measurement.tasks.table import Callback
from lowbit.measurement.tasks.task import Task
from lowbit.quantization.planning.rules import Rules

RUNS = 200


@dataclass(frozen=True)
class Conditions:
    """How files are measured: what all rows of a table have in common.

    Attributes:
        engine: the runtime that predicts, and whose latency and memory are measured: a name, several with commas, or
            "auto" for all that are installed. With several, each file has a row for each engine that opens it; LiteRT
            files always run in LiteRT.
        threads: threads of the runtime while timing.
        batch: images per run while timing.
        runs: timed runs per file; 0 skips latency.
        with_memory: whether memory is measured, each file in a process of its own.
        emulate: "x86" adds, below each integer ONNX file, its answers on x86 without VNNI; empty for none.
        task: what files are judged by: the name of a task, a task, or a function of outputs and labels that gives one
            number; None to choose by what outputs and labels are.
        control: whether the first file is also compressed with zstd -19 and xz -9, which takes seconds per 10 MB.

    >>> conditions = lowbit.Conditions(engine="openvino", threads=1, runs=0, with_memory=False)
    >>> comparison = lowbit.measure("model.onnx", "test", conditions=conditions)
    >>> comparison.rows[0].engine
    'openvino'
    """

    engine: str = "onnxruntime"
    threads: int = 1
    batch: int = 1
    runs: int = RUNS
    with_memory: bool = True
    emulate: str = ""
    control: bool = False
    task: str | Task | Callback | None = None


@dataclass(frozen=True)
class CompareOptions:
    """How the files of a comparison are made.

    Attributes:
        effort: how long the search for codes may take: "fast", "balanced" or "best".
        form: what the files take, the float file included: with image bytes, latency covers the whole way from the
            image to the answer. Which engine a file is written for is not said here: each engine gets its own.
        same_data: evaluate even on images that were used for calibration.
        strict: fail if anything that was asked for cannot be given.
        rules: other recipes for some layers, in all recipes but float; see `plan`.
        kept: a folder where the files of finished recipes are kept, and taken from if they are there already; so a run
            that was stopped can be taken up. None keeps nothing. Whoever has all results removes it.

    >>> lowbit.CompareOptions(effort="fast", rules=["first=float"], strict=True).effort
    'fast'
    """

    effort: str = "balanced"
    form: FileForm = field(default_factory=FileForm)
    same_data: bool = False
    strict: bool = False
    rules: Rules = ()
    kept: Path | None = None

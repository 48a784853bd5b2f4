"""Under which conditions files are measured: what every row of a table has in common."""

from dataclasses import dataclass

RUNS = 200


@dataclass(frozen=True)
class Conditions:
    """How to measure; `measure` says what each means.

    Attributes:
        engine: runtimes: a name, several with commas, or `auto`.
        threads: of the runtime, while timing.
        batch: images a run, while timing.
        runs: timed runs of each file; 0 leaves latency out.
        with_memory: whether memory is measured.
        emulate: target whose answers are emulated; empty for none.
        control: whether the first file is compressed as it is.
    """

    engine: str = "onnxruntime"
    threads: int = 1
    batch: int = 1
    runs: int = RUNS
    with_memory: bool = True
    emulate: str = ""
    control: bool = False

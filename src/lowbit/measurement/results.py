"""What was measured, as plain data: the contract between measuring and showing.

`compare` fills these values, every report renders them, and `results.json` is exactly them. Fractions (accuracy,
agreement) lie in 0..1, sizes are bytes, times milliseconds, SQNR decibels, KL and loss nats. Every ratio says how many
times *better* than float a file is: `file_ratio` 4 is four times smaller, `latency_ratio` 1.6 is 1.6 times faster.
`None` means "not measured"; a `weight_sqnr_db` of `None` beside a `weight_mse` of 0 means exact (JSON has no infinity).
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.files import check_ending, write_atomically
from lowbit.measurement.details import Details
from lowbit.printable import brief, listed, several

if TYPE_CHECKING:
    import pandas

    from lowbit.reports.plot import Plot

VERSION = 1
CLASSIFICATION = "classification"  # whose figures are fields of `Row`


@dataclass(frozen=True)
class Metric:
    """A figure of a task, which rows hold in `scores` under its name.

    Attributes:
        name: in JSON and CSV.
        title: above its column.
        unit: below the title; a fraction is shown as a percentage where it is "%".
        best: +1 if larger is better, -1 if smaller is, 0 if that is not known.
        help: one line for the page.

    >>> lowbit.Metric("map", "mAP", "%", best=1).title
    'mAP'
    """

    name: str
    title: str
    unit: str = ""
    best: int = 1
    help: str = ""


@dataclass(frozen=True)
class Row:
    """One file and everything measured on it."""

    recipe: str  # what the row is called; of files that a user named, the name of the file
    file: str
    engine: str
    file_bytes: int
    file_recipe: str = ""  # that the file says it was quantized by, where the row is not called after it
    file_ratio: float | None = None
    weight_bytes: int | None = None
    weight_ratio: float | None = None
    theoretical_ratio: float | None = None
    parameters: int | None = None
    macs: int | None = None
    weight_mse: float | None = None
    weight_sqnr_db: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    agreement: float | None = None
    loss: float | None = None
    kl: float | None = None
    flips: int | None = None
    mcnemar_p: float | None = None
    verdict: str = ""  # better, same, worse or cannot tell than float; see `lowbit.certainty.verdicts`
    drop_low: float | None = None  # of accuracy or the task's metric, at least and at most, each with 95 % confidence
    drop_high: float | None = None
    samples_needed: int | None = None  # about how many would tell, where these cannot
    output_error: float | None = None  # of the farthest output: squared error over the variance of each channel
    output_sqnr_db: float | None = None  # of that output
    output_agreement: float | None = None  # of integers: of the output that agrees least
    worst_output: str = ""  # the farthest one
    latency_ms: float | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    latency_ratio: float | None = None
    load_ms: float | None = None
    load_memory_bytes: int | None = None
    peak_memory_bytes: int | None = None
    arena_bytes: int | None = None  # of a .tflite file: RAM on a microcontroller, estimated
    archive_bytes: int | None = None  # of the same file as an archive
    code_bits: float | None = None  # per quantized weight, mean
    entropy_bits: float | None = None  # empirical entropy of its code
    zstd_bytes: int | None = None  # of the float file, the control
    xz_bytes: int | None = None
    calibration_error: float | None = None  # of confidence, expected, 0..1
    expected_ratio: float | None = None  # how many times faster it should be, said before anything was timed
    emulated: str = ""  # target whose answers these are, if they are emulated
    fastest_engine: str = ""  # of those that ran the file, if there are several
    label: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)  # of the task, by the names of its metrics
    details: Details = field(default_factory=Details)

    def __repr__(self) -> str:
        shown = [f"{self.file_bytes:,} bytes"]
        shown += [] if self.accuracy is None else [f"accuracy {100 * self.accuracy:.1f} %"]
        shown += [] if self.kl is None else [f"KL {self.kl:.2g}"]
        shown += [] if self.latency_ms is None else [f"{self.latency_ms:.3g} ms"]
        return f"<Row {brief(self.name)}: {', '.join(shown)}>"

    @property
    def name(self) -> str:
        """Name of the row: the recipe, with the engine where there are several."""
        return self.label or self.recipe

    def scalars(self) -> dict[str, str | int | float | None]:
        """Every column but `scores` and `details`, in order: one line of the CSV."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("scores", "details")]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class LayerCostRow:
    """What one layer costs in the float model."""

    name: str
    op: str
    macs: int
    parameters: int
    weight_bytes: int
    output_shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class NetworkNode:
    """An input, a layer, a node in which branches meet, or an output; `inputs` are places of earlier nodes."""

    name: str
    op: str
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelSummary:
    """The float model. `trained_parameters` as trained, `parameters` after batch norms were folded."""

    name: str
    trained_parameters: int
    parameters: int
    macs: int
    input_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Environment:
    """Where and how the numbers were made, so that someone else can make them again."""

    cpu: str
    cpu_flags: tuple[str, ...]
    cores: int
    system: str
    python: str
    packages: Mapping[str, str]
    engine: str = ""
    target: str = ""  # processor that integer files are made for
    threads: int = 0
    batch: int = 1
    runs: int = 0
    warmup: int = 0
    seeds: Mapping[str, int] = field(default_factory=dict)
    model_sha256: str = ""  # of the first file
    graph_sha256: str = ""  # of the network itself, as plans and written files name it
    kernels: str = ""  # that sums of floats were computed by while codes were chosen
    data: str = ""
    data_images: int = 0
    data_sha256: str = ""
    calibration: str = ""
    calibration_images: int = 0
    calibration_sha256: str = ""
    load_average: float | None = None
    cpu_share: float | None = None
    created: str = ""
    command: str = ""

    def __repr__(self) -> str:
        return f"<Environment {brief(self.cpu)}, {brief(self.system)}, {brief(self.engine or 'no engine')}>"


@dataclass(frozen=True)
class Comparison:
    """The whole comparison: the float row first, then one row per file, or several where several engines run it.

    >>> quantized = lowbit.quantize("model.onnx", "linear8")
    >>> comparison = lowbit.measure(["model.onnx", quantized], "test", runs=0)
    >>> comparison.rows[1].file_recipe, comparison.rows[1].accuracy == comparison.rows[0].accuracy
    ('linear8', True)
    >>> comparison.plot().save("plot.svg").name
    'plot.svg'
    """

    rows: tuple[Row, ...]
    environment: Environment
    model: ModelSummary
    layers: tuple[LayerCostRow, ...] = ()
    notes: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()  # what integers were expected to bring, one text per engine
    task: str = CLASSIFICATION
    metrics: tuple[Metric, ...] = ()  # of the task, the most important one first
    network: tuple[NetworkNode, ...] = ()  # in execution order; empty if there are more nodes than a page can show

    def __repr__(self) -> str:
        names = listed((row.name for row in self.rows), most=8)
        samples = f" on {several(self.environment.data_images, 'sample')}" if self.environment.data_images else ""
        return f"<Comparison of {several(len(self.rows), 'row')}{samples}: {names or 'none'}>"

    def _repr_html_(self) -> str:
        from lowbit.reports.notebook import comparison_html

        return comparison_html(self)

    def to_pandas(self) -> "pandas.DataFrame":
        """A line per row, under its name, with the columns of results.csv.

        Raises:
            EngineError: pandas is not installed.
        """
        from lowbit.reports.frames import comparison_frame

        return comparison_frame(self)

    def plot(self) -> "Plot":
        """What the task measures against file size: a drawing that a notebook shows, and that can be saved as .svg.

        Raises:
            DataError: fewer than two files have both.
        """
        from lowbit.reports.plot import plot

        return plot(self)

    def save_report(self, path: Path | str) -> Path:
        """Write the page with everything that was measured, as one .html file, whole or not at all.

        Raises:
            OutputError: its name does not end in .html, the folder is not writable, or the disk is full.
        """
        from lowbit.reports.page import page

        check_ending(path, (".html",))
        return write_atomically(path, page(self))

    @property
    def named_by(self) -> str:
        """What rows are called after: the recipe that `compare` follows, or the file that `measure` is given."""
        return "file" if any(row.file_recipe for row in self.rows) else "recipe"

    @property
    def files(self) -> tuple[Row, ...]:
        """One row per file: of the first engine that ran it, without emulated rows.

        Rows are named after their recipe, and also after the engine where a recipe has several files.
        """
        files: list[Row] = []
        engines: set[str] = set()
        for row in self.rows:
            if row.emulated:
                continue
            # Files in other folders can have the same name, but a file has one row per engine.
            if not files or row.file != files[-1].file or row.engine in engines:
                files.append(row)
                engines.clear()
            engines.add(row.engine)
        recipes = [row.recipe for row in files]
        return tuple(row if recipes.count(row.recipe) > 1 else dataclasses.replace(row, label="") for row in files)

    def is_reference(self, row: Row) -> bool:
        """Whether a row is of the first file, or of the same weights in a file for another engine."""
        return row.recipe == self.rows[0].recipe and not row.weight_mse

    def reference_of(self, row: Row) -> Row:
        """The reference on the engine of a row; the first row if that engine did not run it."""
        return next(
            (other for other in self.rows if other.engine == row.engine and self.is_reference(other)), self.rows[0]
        )

    @property
    def has_labels(self) -> bool:
        """Whether accuracy was measured; without labels agreement with the first row takes its place."""
        return any(row.accuracy is not None for row in self.rows)

    @property
    def classifies(self) -> bool:
        """Whether rows have the figures of classifiers, which are fields of their own."""
        return self.task == CLASSIFICATION or self.has_labels or any(row.agreement is not None for row in self.rows)

    @property
    def shows_outputs(self) -> bool:
        """Whether distances of outputs say something that a classifier's divergence does not."""
        return not self.classifies or any(len(row.details.outputs) > 1 for row in self.rows)

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"lowbit_results": VERSION, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """The same as text."""
        return as_text(self.to_data())


def as_text(data: Mapping[str, Any]) -> str:
    """JSON, without the NaN and Infinity that JSON does not have."""
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def finite(value: float | None) -> float | None:
    """`value`, or `None` where it is not a finite number, which JSON could not hold."""
    return None if value is None or value != value or value in (float("inf"), float("-inf")) else float(value)

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
from typing import Any

VERSION = 1
CLASSIFICATION = "classification"  # whose figures are fields of `Row`


@dataclass(frozen=True)
class LayerRow:
    """One layer in one file. `bytes` and `bits` (mean, per weight) are those of its weights in this file."""

    name: str
    op: str
    macs: int
    bytes: int
    bits: float
    mse: float | None = None
    sqnr_db: float | None = None
    scheme: str = ""
    stays_float: str = ""  # the reason, or empty
    code_bits: float | None = None  # per weight, without scales, zero points and code books


@dataclass(frozen=True)
class Histogram:
    """Float weights of one tensor (or all) counted in `len(edges) - 1` bins, and the code book that replaces them."""

    tensor: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    code_book: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Example:
    """An image that float and this file classify differently; `thumbnail` is a PNG in base64."""

    image: int
    label: str | None
    float_class: str
    quantized_class: str
    thumbnail: str


@dataclass(frozen=True)
class Confusion:
    """So many images of one class that a file takes for another, by class number; -1: its outputs are not finite."""

    label: int
    answer: int
    images: int


@dataclass(frozen=True)
class ConfidenceBin:
    """Answers with a confidence between `low` and `high`: how many, their mean confidence, how many are right."""

    low: float
    high: float
    images: int
    confidence: float
    right: int


@dataclass(frozen=True)
class ByClass:
    """A classifier's answers; the first three are counts for each class number.

    Attributes:
        images: labeled as this class.
        answers: answered as this class.
        right: both.
        confusions: wrong answers, the most frequent first, 400 kinds at most.
        bins: by confidence, those that hold images.
    """

    images: tuple[int, ...]
    answers: tuple[int, ...]
    right: tuple[int, ...]
    confusions: tuple[Confusion, ...] = ()
    bins: tuple[ConfidenceBin, ...] = ()


@dataclass(frozen=True)
class Step:
    """One step that quantization tried: how far from float, by `measure`, on images that judge and that it fits."""

    name: str
    before: float | None = None
    after: float | None = None
    fitted: float | None = None
    measure: str = ""
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True)
class OutputRow:
    """One output of a file against the float one's: of floats their distance, of integers how many are the same.

    Attributes:
        name: of the output, as the float file calls it.
        type: of its numbers.
        shape: for one sample, sizes separated by ×; ? where they differ from sample to sample.
        sqnr_db: 10 log10(sum y^2 / sum (y - q)^2); None where exact, or not measured.
        relative_error: squared error over the variance of each channel, at most 1, in the mean over channels.
        agreement: share of integers that are the same.
        differing: samples whose answer has another shape than float's; they are not in the figures.
    """

    name: str
    type: str
    shape: str
    sqnr_db: float | None = None
    relative_error: float | None = None
    agreement: float | None = None
    differing: int = 0


@dataclass(frozen=True)
class Metric:
    """A figure of a task, which rows hold in `scores` under its name.

    Attributes:
        name: in JSON and CSV.
        title: above its column.
        unit: below the title; a fraction is shown as a percentage where it is "%".
        best: +1 if larger is better, -1 if smaller is, 0 if that is not known.
        help: one line for the page.
    """

    name: str
    title: str
    unit: str = ""
    best: int = 1
    help: str = ""


@dataclass(frozen=True)
class Details:
    """More about a row: `ledger` (bytes by kind) sums to the file, `archive_ledger` to its archive,
    `parameter_counts` to the stored numbers.
    """

    ledger: Mapping[str, int] = field(default_factory=dict)
    archive_ledger: Mapping[str, int] = field(default_factory=dict)
    parameter_counts: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[LayerRow, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    examples: tuple[Example, ...] = ()
    steps: tuple[Step, ...] = ()
    outputs: tuple[OutputRow, ...] = ()
    by_class: ByClass | None = None  # of classifiers with labels
    layer_us: Mapping[str, float] = field(default_factory=dict)  # time of each layer, where the engine tells
    other_us: float | None = None  # of all other nodes
    notes: tuple[str, ...] = ()  # what was requested and not given, each a full sentence


@dataclass(frozen=True)
class Row:
    """One file and everything measured on it."""

    recipe: str
    file: str
    engine: str
    file_bytes: int
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


@dataclass(frozen=True)
class Comparison:
    """The whole comparison: the float row first, then one row per file, or several where several engines run it."""

    rows: tuple[Row, ...]
    environment: Environment
    model: ModelSummary
    layers: tuple[LayerCostRow, ...] = ()
    notes: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()  # what integers were expected to bring, one text per engine
    task: str = CLASSIFICATION
    metrics: tuple[Metric, ...] = ()  # of the task, the most important one first
    network: tuple[NetworkNode, ...] = ()  # in execution order; empty if there are more nodes than a page can show

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

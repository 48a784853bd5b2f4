"""The columns of the comparison, in one table that terminal, CSV, JSON and page read. A new column is one row here."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from lowbit.certainty.verdicts import WORDS
from lowbit.measurement.results import Comparison, Row
from lowbit.reports import units

SIZE, QUALITY, CHANGES, SPEED = "Size", "Quality", "Against float", "Speed"
CERTAINTY, WEIGHTS, MEMORY = "Certainty", "Weights", "Loading and memory"
# In the page's order; the first ones that fit are shown, the others where readers want them.
GROUPS = (SIZE, QUALITY, CHANGES, SPEED, CERTAINTY, WEIGHTS, MEMORY)

SMALL_FILE = 1_000_000  # bytes; if all are smaller, sizes are in kB


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: in CSV and JSON.
        group: of columns that the page shows side by side, one of `GROUPS`.
        title: above the column.
        unit: below the title.
        format: a number as text.
        rank: 0 always shows; higher ones go first where space is short.
        best: +1 if larger is better, -1 if smaller is, 0 if neither.
        help: one line for the page.
        value: what it is computed from; by default the field of `Row` that is called `name`.
        text: of a row, where the number alone does not say it.
    """

    name: str
    group: str
    title: str
    unit: str
    format: Callable[[float | None], str]
    rank: int
    best: int
    help: str
    value: Callable[[Row], float | None] | None = None
    text: Callable[[Row], str] | None = None

    def number(self, row: Row) -> float | None:
        """The number of a row; None if it was not measured."""
        return cast("float | None", getattr(row, self.name)) if self.value is None else self.value(row)

    def cell(self, row: Row) -> str:
        """The text of a row."""
        return self.format(self.number(row)) if self.text is None else self.text(row)


COLUMNS = (
    Column("file_bytes", SIZE, "size", "MB", units.megabytes, 3, -1, "Size of the whole file, in decimal units"),
    Column("file_ratio", SIZE, "smaller", "×", units.ratio, 0, 1, "Size of the float file over the size of this file"),
    Column("weight_ratio", WEIGHTS, "weights", "×", units.ratio, 9, 1,
           "Bytes of the float weights over the bytes of their codes, scales and code books"),
    Column("theoretical_ratio", WEIGHTS, "32/n", "×", units.ratio, 13, 0,
           "What n bits per weight would give if nothing else were stored"),
    Column("archive_bytes", SIZE, "archive", "MB", units.megabytes, 10, -1,
           "Size of the same file entropy-coded by lowbit pack"),
    Column("arena_bytes", MEMORY, "arena", "MB", units.megabytes, 14, -1,
           "RAM of the interpreter on a microcontroller, estimated by lowbit export; .tflite files only"),
    Column("entropy_bits", WEIGHTS, "entropy", "bits", units.decimal, 13, 0,
           "Empirical entropy of the codes, per weight"),
    Column("accuracy", QUALITY, "accuracy", "%", units.percent, 0, 1, "Share of images classified as labeled"),
    Column("accuracy_low", CERTAINTY, "95 % interval", "%", units.percent, 6, 0,
           "Wilson's interval: where the accuracy on other images of the same kind would lie",
           text=lambda row: units.interval(row.accuracy_low, row.accuracy_high)),
    Column("agreement", QUALITY, "agreement", "%", units.percent, 14, 1,
           "Share of images classified as float classifies them"),
    Column("flips", CHANGES, "flips", "", units.count, 4, -1, "Predictions that differ from float"),
    Column("mcnemar_p", CERTAINTY, "p", "", units.p_value, 10, 0,
           "McNemar's exact test: how likely chance alone changes the accuracy this much"),
    Column("verdict", QUALITY, "verdict", "", units.count, 2, 0,
           "On other samples of this kind: the same as float (at most a point lost), worse, better; or one cannot tell",
           value=lambda row: WORDS.index(row.verdict) if row.verdict in WORDS else None,
           text=lambda row: row.verdict or units.MISSING),
    Column("drop_high", CERTAINTY, "at most", "points", lambda value: units.percent(value, 2), 11, 0,
           "What the file loses at most on other samples of this kind, with 95 % confidence"),
    Column("kl", CHANGES, "KL", "nats", units.divergence, 2, -1,
           "Mean KL divergence of the class probabilities from float's"),
    Column("calibration_error", QUALITY, "ECE", "%", units.percent, 17, -1,
           "Expected calibration error: how far confidence and accuracy are apart; not about calibration images"),
    Column("loss", QUALITY, "loss", "nats", lambda value: units.decimal(value, 3), 7, -1, "Cross-entropy"),
    Column("weight_sqnr_db", WEIGHTS, "SQNR", "dB", lambda value: units.decimal(value, 1), 8, 1,
           "Signal-to-quantization-noise ratio of all weights",
           text=lambda row: "exact" if row.weight_mse == 0 else units.decimal(row.weight_sqnr_db, 1)),
    Column("weight_mse", WEIGHTS, "MSE", "", units.small, 15, -1, "Mean squared error of all weights"),
    Column("latency_ms", SPEED, "latency", "ms", units.milliseconds, 5, -1, "Median time of one inference"),
    Column("latency_ratio", SPEED, "faster", "×", units.ratio, 1, 1,
           "Float's time over this file's time, median of the ratios within rounds"),
    Column("expected_ratio", SPEED, "expected", "×", units.ratio, 7, 0,
           "How many times faster it should be: a file of the same plan with made-up ranges, timed beforehand"),
    Column("load_ms", MEMORY, "ready", "ms", units.milliseconds, 16, -1,
           "Time that a fresh process takes to load the model and unpack its weights, once"),
    Column("load_memory_bytes", MEMORY, "load", "MB", units.megabytes, 12, -1,
           "Memory that a fresh process gains by loading the model"),
    Column("peak_memory_bytes", MEMORY, "peak", "MB", units.megabytes, 11, -1,
           "Most memory gained up to the end of one inference"),
)  # fmt: skip


# Where a classifier's divergence does not say it all.
OUTPUT_COLUMNS = (
    Column("output_error", CHANGES, "error", "", units.small, 2, -1,
           "Squared error of the farthest output over the variance of each of its channels, mean over channels"),
    Column("output_sqnr_db", CHANGES, "output SQNR", "dB", lambda value: units.decimal(value, 1), 6, 1,
           "Signal-to-noise ratio of that output",
           text=lambda row: "exact" if row.output_error == 0 else units.decimal(row.output_sqnr_db, 1)),
    Column("output_agreement", CHANGES, "same", "%", units.percent, 4, 1,
           "Share of integer outputs that are the same as float's, of the output that agrees least"),
)  # fmt: skip


def columns_of(comparison: Comparison) -> tuple[Column, ...]:
    """The columns worth showing; agreement takes the place of accuracy where there are no labels."""
    known = (*(OUTPUT_COLUMNS if comparison.shows_outputs else ()), *COLUMNS)
    metrics = metric_columns(comparison)
    known = (*known, *metrics) if comparison.classifies else (*metrics, *known)
    used = [c for c in known if any(c.number(row) is not None for row in comparison.rows)]
    if not (comparison.classifies or (comparison.metrics and comparison.metrics[0].unit == "%")):
        used = [dataclasses.replace(c, unit="", format=units.figure) if c.name == "drop_high" else c for c in used]
    if max(row.file_bytes for row in comparison.rows) < SMALL_FILE:
        small = {"unit": "kB", "format": units.kilobytes}
        used = [dataclasses.replace(c, **small) if (c.group, c.unit) == (SIZE, "MB") else c for c in used]
    if len({row.engine for row in comparison.rows}) > 1:
        # "Faster" refers to one float row; between engines, people compare milliseconds.
        used = [dataclasses.replace(c, rank=0) if c.name == "latency_ms" else c for c in used]
    if comparison.has_labels:
        # Flips say the same as agreement in whole images, and SQNR the same as MSE on a scale that one can read.
        return tuple(c for c in used if c.name not in ("agreement", "weight_mse"))
    return tuple(dataclasses.replace(c, rank=0) if c.name == "agreement" else c for c in used)


def metric_columns(comparison: Comparison) -> tuple[Column, ...]:
    """The columns of the task's metrics; the first one is always shown."""
    return tuple(
        Column(
            metric.name, QUALITY, metric.title, metric.unit, units.percent if metric.unit == "%" else units.figure,
            9 if comparison.classifies else 3 * place, metric.best, metric.help,
            value=partial(_score, name=metric.name),
        )
        for place, metric in enumerate(comparison.metrics)
    )  # fmt: skip


def _score(row: Row, *, name: str) -> float | None:
    return row.scores.get(name)


def computed(row: Row) -> dict[str, float | None]:
    """By name, the columns that are no fields of `Row`, for CSV and JSON."""
    known = {field.name for field in dataclasses.fields(Row)}
    return {column.name: column.number(row) for column in COLUMNS if column.name not in known}


def best_of(column: Column, rows: Sequence[Row]) -> str:
    """The text of the best cells among quantized rows: all that read the same, or none (an empty text) where that is
    most of them, or there is nothing to compare.
    """
    known = [(value, column.cell(row)) for row in rows if (value := column.number(row)) is not None]
    if not column.best or len(known) < 2:
        return ""
    best = max(known) if column.best > 0 else min(known)
    cells = [cell for _, cell in known]
    return best[1] if 2 * cells.count(best[1]) <= len(cells) else ""

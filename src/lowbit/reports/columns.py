"""The columns of the comparison, once, for the terminal and for the page. A new column is one row here."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lowbit.measurement.results import Comparison, Row
from lowbit.reports import units

SLOWER = 0.95  # times as fast as float, where it is worth a warning


@dataclass(frozen=True)
class Column:
    """`rank` 0 always shows, higher ones go first where space is short. `best`: +1 larger is better, -1 smaller."""

    title: str
    unit: str
    text: Callable[[Row], str]
    value: Callable[[Row], float | None]
    rank: int
    best: int
    help: str


COLUMNS = (
    Column("size", "MB", lambda r: units.megabytes(r.file_bytes), lambda r: r.file_bytes, 3, -1,
           "Bytes of the whole file, in 10⁶"),
    Column("smaller", "×", lambda r: units.ratio(r.file_ratio), lambda r: r.file_ratio, 0, 1,
           "Float file over this file"),
    Column("weights", "×", lambda r: units.ratio(r.weight_ratio), lambda r: r.weight_ratio, 9, 1,
           "Bytes of the float weights over the bytes of the codes that stand for them"),
    Column("32/n", "×", lambda r: units.ratio(r.theoretical_ratio), lambda r: r.theoretical_ratio, 13, 0,
           "What n bits a weight would give if nothing else were stored"),
    Column("archive", "MB", lambda r: units.megabytes(r.archive_bytes), lambda r: r.archive_bytes, 10, -1,
           "Bytes of the same file entropy-coded by lowbit pack, in 10⁶"),
    Column("entropy", "bits", lambda r: units.decimal(r.entropy_bits, 2), lambda r: r.entropy_bits, 13, 0,
           "Empirical entropy of the codes, for each weight"),
    Column("accuracy", "%", lambda r: units.percent(r.accuracy), lambda r: r.accuracy, 0, 1,
           "Share of images classified as labelled"),
    Column("95 % interval", "%", lambda r: units.interval(r.accuracy_low, r.accuracy_high), lambda r: r.accuracy_low,
           6, 0, "Wilson's interval: what other images of the same kind would give"),
    Column("agreement", "%", lambda r: units.percent(r.agreement), lambda r: r.agreement, 14, 1,
           "Share of images classified as float classifies them"),
    Column("flips", "", lambda r: units.count(r.flips), lambda r: r.flips, 4, -1,
           "Predictions that differ from float"),
    Column("p", "", lambda r: units.p_value(r.mcnemar_p), lambda r: r.mcnemar_p, 10, 0,
           "McNemar's exact test: how likely chance alone moves the accuracy this far"),
    Column("KL", "nats", lambda r: units.divergence(r.kl), lambda r: r.kl, 2, -1,
           "Mean divergence of the class probabilities from float's"),
    Column("loss", "nats", lambda r: units.decimal(r.loss, 3), lambda r: r.loss, 7, -1, "Cross-entropy"),
    Column("SQNR", "dB", lambda r: "exact" if r.weight_mse == 0 else units.decimal(r.weight_sqnr_db, 1),
           lambda r: r.weight_sqnr_db, 8, 1, "Weights over their error, all layers pooled"),
    Column("MSE", "", lambda r: units.small(r.weight_mse), lambda r: r.weight_mse, 15, -1,
           "Mean squared error of the weights, all layers pooled"),
    Column("latency", "ms", lambda r: units.milliseconds(r.latency_ms), lambda r: r.latency_ms, 5, -1,
           "Median of one inference"),
    Column("faster", "×", lambda r: units.ratio(r.latency_ratio), lambda r: r.latency_ratio, 1, 1,
           "Float time over this time, median within rounds"),
    Column("expected", "×", lambda r: units.ratio(r.expected_ratio), lambda r: r.expected_ratio, 7, 0,
           "How many times faster it should be, by what the processor did on small kernels beforehand"),
    Column("load", "MB", lambda r: units.megabytes(r.load_memory_bytes), lambda r: r.load_memory_bytes, 12, -1,
           "Memory that a fresh process gains by loading the model"),
    Column("peak", "MB", lambda r: units.megabytes(r.peak_memory_bytes), lambda r: r.peak_memory_bytes, 11, -1,
           "Most memory gained up to the end of one inference"),
)  # fmt: skip


def columns_of(comparison: Comparison) -> tuple[Column, ...]:
    """The columns worth showing; agreement stands in for accuracy where there are no labels."""
    used = [c for c in COLUMNS if any(c.value(row) is not None for row in comparison.rows)]
    if len({row.engine for row in comparison.rows}) > 1:
        # "Faster" is against one float row; between engines it is milliseconds that people compare.
        used = [dataclasses.replace(c, rank=0) if c.title == "latency" else c for c in used]
    if comparison.has_labels:
        # Flips say the same as agreement in whole images, and SQNR the same as MSE on a scale that one can read.
        return tuple(c for c in used if c.title not in ("agreement", "MSE"))
    return tuple(dataclasses.replace(c, rank=0) if c.title == "agreement" else c for c in used)


def best_of(column: Column, rows: Sequence[Row]) -> float | None:
    """The best value among quantized rows; `None` where most rows share it, or there is nothing to compare."""
    values = [v for row in rows if (v := column.value(row)) is not None]
    if not column.best or len(values) < 2:
        return None
    best = max(values) if column.best > 0 else min(values)
    return best if 2 * values.count(best) <= len(values) else None


def footnotes(comparison: Comparison) -> tuple[str, ...]:
    """How to read the numbers, in full sentences; warnings first."""
    e, rows = comparison.environment, comparison.rows
    notes = []
    for row in rows[1:]:
        against = comparison.reference_of(row)
        if row.latency_ratio is None or against.latency_ratio is None or comparison.is_reference(row):
            continue
        if (gain := row.latency_ratio / against.latency_ratio) < SLOWER:
            float_row = "float" if against.engine == row.engine else float_of(against)
            notes.append(f"{row.name} is slower than {float_row} here ({units.ratio(gain)}).")
    if e.threads == 1 and e.cpu_share is not None and e.cpu_share < 0.9:
        notes.append(
            f"Timing shared the processor with other programs ({e.cpu_share:.0%} of it): repeat on a quiet machine."
        )
    if any(row.latency_ms is not None for row in rows):
        threads = "threads chosen by the runtime" if not e.threads else f"{e.threads} thread{'s' * (e.threads > 1)}"
        version = e.packages.get(e.engine, "")
        engine = " ".join(word for word in (e.engine, version) if word)
        notes.append(f"Latency: {engine}, {threads}, batch {e.batch}, median of {e.runs} runs, files interleaved.")
    if rows[0].zstd_bytes and rows[0].xz_bytes:
        made = (
            f"{name} {units.size(size)} ({units.ratio(rows[0].file_bytes / size)} smaller)"
            for name, size in (("zstd -19", rows[0].zstd_bytes), ("xz -9", rows[0].xz_bytes))
        )
        notes.append(f"Control: the float file through {', through '.join(made)}.")
    left = [row.name for row in comparison.files if row.archive_bytes is None and not row.file.endswith(".tflite")]
    if left and len(left) < len(comparison.files):
        notes.append(f"Too large to be coded here, or in several files: {', '.join(left)}.")
    best = [row for row in rows if row.fastest_engine and row.fastest_engine == row.engine]
    if best:
        top = min((row for row in rows if row.latency_ms is not None), key=lambda row: row.latency_ms or 0.0)
        notes.append(f"Fastest of all: {top.file} with {top.engine} ({units.milliseconds(top.latency_ms)} ms).")
        named = (f"{row.recipe} {row.engine} ({units.milliseconds(row.latency_ms)} ms)" for row in best)
        notes.append(f"Fastest engine for each recipe: {', '.join(named)}.")
    notes += [
        f"{row.name}: expected {units.ratio(row.expected_ratio)} as fast as {float_of(rows[0])}, "
        f"measured {units.ratio(row.latency_ratio)}."
        for row in rows
        if row.expected_ratio is not None
    ]
    notes += comparison.verdicts
    if e.target:
        notes.append(f"Integers are made for {e.target}.")
    if e.data_images:
        where = f" of {e.data}" if e.data else ""
        kind = "Accuracy" if comparison.has_labels else "Agreement with float"
        notes.append(f"{kind} on {e.data_images:,} images{where}; one image is {100 / e.data_images:.2f} points.")
    if comparison.has_labels and any(row.flips is not None for row in rows):
        notes.append(
            "Interval: 95 %, Wilson. Flips: predictions that differ from float. KL: from float's probabilities."
        )
    return tuple(notes)


def float_of(reference: Row) -> str:
    """What to call a float row in a sentence."""
    return f"float with {reference.engine}" if reference.label else "float"


def complaints(comparison: Comparison) -> tuple[str, ...]:
    """Everything that was asked for and not given, each with its recipe, or its rows if others of it do not say so."""
    said: dict[tuple[str, str], list[Row]] = {}
    for row in comparison.rows:
        for note in row.details.notes:
            said.setdefault((row.label if row.emulated else row.recipe, note), []).append(row)
    own = []
    for (name, note), rows in said.items():
        # What is true of a file is told with its first row.
        firsts = {(row.file, row.engine) for row in comparison.files if row.recipe == rows[0].recipe}
        everywhere = firsts <= {(row.file, row.engine) for row in rows}
        own += [f"{name}: {note}"] if everywhere else [f"{row.name}: {note}" for row in rows]
    return (*comparison.notes, *own)

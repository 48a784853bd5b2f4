"""What reports say below the table, in sentences: how to read the numbers, warnings, what could not be given."""

from collections.abc import Collection

from lowbit.certainty.intervals import hidden_share
from lowbit.certainty.verdicts import CANNOT_TELL, CONFIDENCE, MARGIN
from lowbit.measurement.results import Comparison, Row
from lowbit.printable import several
from lowbit.reports import units
from lowbit.reports.quality import quality_of

SLOWER = 0.95  # times as fast as float, where it is worth a warning
LISTED = ", "
BUSY = 0.9  # share of the processor that a timing should at least get


def footnotes(comparison: Comparison, columns: Collection[str] | None = None) -> tuple[str, ...]:
    """How to read the numbers, in full sentences; warnings first.

    Args:
        comparison: what is shown.
        columns: names of the columns that are shown; None for all.
    """

    def shows(*names: str) -> bool:
        return columns is None or not set(names).isdisjoint(columns)

    return (
        *_warnings(comparison),
        *(_about_latency(comparison) if shows("latency_ms", "latency_ratio") else ()),
        *_about_controls(comparison),
        *(_about_archives(comparison) if shows("archive_bytes") else ()),
        *_about_engines(comparison),
        *_about_images(comparison),
        *(_about_verdicts(comparison, defined=columns is None) if shows("verdict") else ()),
    )


def _warnings(comparison: Comparison) -> list[str]:
    environment, notes = comparison.environment, []
    for row in comparison.rows[1:]:
        against = comparison.reference_of(row)
        if row.latency_ratio is None or against.latency_ratio is None or comparison.is_reference(row):
            continue
        if (gain := row.latency_ratio / against.latency_ratio) < SLOWER:
            float_row = float_of(against)
            notes.append(f"{row.name} is slower than {float_row} here ({units.ratio(gain)}).")
    if environment.threads == 1 and environment.cpu_share is not None and environment.cpu_share < BUSY:
        notes.append(
            f"Other programs were running: timing got only {environment.cpu_share:.0%} of the processor. Repeat it on "
            "a quiet machine."
        )
    return notes


def _about_latency(comparison: Comparison) -> list[str]:
    environment = comparison.environment
    if all(row.latency_ms is None for row in comparison.rows):
        return []
    count = environment.threads
    threads = several(count, "thread") if count else "threads chosen by the runtime"
    engine = f"{environment.engine} {environment.packages.get(environment.engine, '')}".strip()
    parts = [
        engine,
        threads,
        f"batch size {environment.batch}",
        f"median of {several(environment.runs, 'interleaved run')}",
    ]
    return [f"Latency: {', '.join(part for part in parts if part)}."]


def _about_controls(comparison: Comparison) -> list[str]:
    first, notes = comparison.rows[0], []
    if first.zstd_bytes and first.xz_bytes:
        controls = (
            f"with {name}: {units.size(size)} ({units.ratio(first.file_bytes / size)} smaller)"
            for name, size in (("zstd -19", first.zstd_bytes), ("xz -9", first.xz_bytes))
        )
        notes.append(f"Float file compressed {'; '.join(controls)}.")
    return notes


def _about_archives(comparison: Comparison) -> list[str]:
    left = [row.name for row in comparison.files if row.archive_bytes is None and not row.file.endswith(".tflite")]
    if left and len(left) < len(comparison.files):
        return [f"Not entropy-coded, because too large or in several files: {', '.join(left)}."]
    return []


def _about_engines(comparison: Comparison) -> list[str]:
    rows, notes = comparison.rows, []
    best = [row for row in rows if row.fastest_engine and row.fastest_engine == row.engine]
    if best:
        top = min((row for row in rows if row.latency_ms is not None), key=lambda row: row.latency_ms or 0.0)
        notes.append(f"Fastest of all: {top.file} with {top.engine} ({units.milliseconds(top.latency_ms)} ms).")
        named = (f"{row.recipe} {row.engine} ({units.milliseconds(row.latency_ms)} ms)" for row in best)
        notes.append(f"Fastest engine for each recipe: {', '.join(named)}.")
    notes += [
        f"{row.name}: expected to run {units.ratio(row.expected_ratio)} as fast as {float_of(rows[0])}, measured "
        f"{units.ratio(row.latency_ratio)}."
        for row in rows
        if row.expected_ratio is not None
    ]
    notes += comparison.verdicts
    if comparison.environment.target:
        integers = dict.fromkeys(row.recipe for row in rows if row.recipe.startswith(("int", "icluster")))
        notes.append(f"{', '.join(integers) or 'Integer'} files target {comparison.environment.target}.")
    return notes


def _about_images(comparison: Comparison) -> list[str]:
    environment = comparison.environment
    notes: list[str] = []
    if environment.data_images:
        where = f" from {environment.data}" if environment.data else ""
        if not comparison.classifies:
            return _about_task(comparison, f"{several(environment.data_images, 'sample')}{where}")
        kind = "Accuracy" if comparison.has_labels else "Agreement with float"
        point = 100 / environment.data_images
        images = several(environment.data_images, "image")
        notes.append(f"{kind} on {images}{where}; one image is {point:.2g} point{'s' * (point != 1)}.")
    return notes


def _about_verdicts(comparison: Comparison, *, defined: bool) -> list[str]:
    """What the words mean, where nothing else says so, and what so few samples could never show."""
    samples = comparison.environment.data_images
    if not samples or not any(row.verdict for row in comparison.rows):
        return []
    point = f"{100 * MARGIN:g} point" if quality_of(comparison).scale.is_fraction else f"{100 * MARGIN:g} %"
    if comparison.classifies and not comparison.has_labels:
        return [
            f"Verdict, with 95 % confidence: same if at most {point} of all predictions change; without labels nothing "
            "is better or worse."
        ]
    notes = [
        f"Verdict on other samples of this kind, with 95 % confidence: same if the file loses at most {point} there; "
        "worse if it loses something, perhaps more; better if it gains."
    ] * defined
    if comparison.classifies and any(row.verdict == CANNOT_TELL for row in comparison.rows):
        least = 100 * hidden_share(samples, 1 - CONFIDENCE)
        notes.append(
            f"Cannot tell: {samples:,} images are too few. Even a file that loses none of them may lose "
            f"{least:.2g} points of others."
        )
    return notes


def _about_task(comparison: Comparison, samples: str) -> list[str]:
    """What was measured, which way is better, and which output is the farthest from float's."""
    named = [
        f"{metric.title} ({'higher' if metric.best > 0 else 'lower'} is better)" if metric.best else metric.title
        for metric in comparison.metrics
    ]
    notes = [f"Task: {comparison.task}, on {samples}{f': {LISTED.join(named)}' if named else ''}."]
    farthest = {
        row.worst_output: None
        for row in comparison.rows
        if row.worst_output and row.output_error and not comparison.is_reference(row)
    }
    if farthest:
        notes.append(
            f"Error: squared error relative to variance, of the output farthest from float's ({', '.join(farthest)})."
        )
    return notes


def float_of(reference: Row) -> str:
    """What to call a float row in a sentence."""
    return f"float with {reference.engine}" if reference.label else "float"


def complaints(comparison: Comparison) -> tuple[str, ...]:
    """What was requested and not given, and other notes, each with its recipe (or row)."""
    noted: dict[tuple[str, str], list[Row]] = {}
    for row in comparison.rows:
        for note in row.details.notes:
            noted.setdefault((row.label if row.emulated else row.recipe, note), []).append(row)
    own = []
    for (name, note), rows in noted.items():
        # What is true of a file is told with its first row.
        firsts = {(row.file, row.engine) for row in comparison.files if row.recipe == rows[0].recipe}
        everywhere = firsts <= {(row.file, row.engine) for row in rows}
        own += [f"{name}: {note}"] if everywhere else [f"{row.name}: {note}" for row in rows]
    return (*comparison.notes, *own)

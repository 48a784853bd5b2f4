"""The sections of the page, one function each; one that has nothing to show returns nothing."""

from collections.abc import Callable, Sequence

from lowbit.measurement.results import Comparison, Row
from lowbit.reports import units
from lowbit.reports.charts import layer_costs, layer_errors, ramp
from lowbit.reports.classes import answers_by_class, confidence
from lowbit.reports.distinct import distinct
from lowbit.reports.figures import example_cards, histogram_tiles, latency_bars, ledger_bars
from lowbit.reports.footnotes import float_of, footnotes
from lowbit.reports.layer_time import time_by_layer
from lowbit.reports.main_table import all_files
from lowbit.reports.markup import Markup, element, join, table
from lowbit.reports.network_view import network_view
from lowbit.reports.quality import quality_of
from lowbit.reports.svg import both
from lowbit.reports.trade_off import Point, leaves_out, trade_off

NOTHING = Markup("")
SAME_SIZE = 0.03  # files whose sizes differ by less than this share are one point
WRITTEN = "Every number comes from the file on disk: written, closed and opened again in the runtime."
CLASSIFIED = (
    "Accuracy has Wilson's 95 % interval; p is McNemar's exact test on the images that only one of the two files "
    "classifies correctly.",
    "KL and loss are means in nats.",
)
WEIGHTS = "Weight errors are those of the float weights after folding batch norms, over all layers."
MEMORY = (
    "Memory is the growth of a fresh process: after loading the model, and the peak up to the end of one inference."
)


def distance_of_outputs(comparison: Comparison) -> Markup:
    """Every output of every file beside float's."""
    if not comparison.shows_outputs:
        return NOTHING
    lines = []
    for file, row in enumerate(comparison.files):
        for output in row.details.outputs:
            exact = output.relative_error == 0
            lines.append(
                (
                    row.name,
                    output.name,
                    f"{output.type} {output.shape}",
                    "exact" if exact else units.decimal(output.sqnr_db, 1) if file else "reference",
                    units.small(output.relative_error),
                    units.percent(output.agreement),
                    units.count(output.differing or None),
                )
            )
    if not lines:
        return NOTHING
    heads = ("file", "output", "for one sample", "SQNR, dB", "relative error", "same, %", "other shapes")
    words = (
        "Distance of every output from float's: signal-to-noise ratio, and squared error over the variance of each "
        "channel. Of integers: how many are the same. Answers of another shape than float's are counted, not compared."
    )
    note = element("p", {"class": "note"}, words)
    return join([note, table(*_filled(heads, lines), text=(1, 2))])


def points_of(comparison: Comparison) -> list[Point]:
    """Size and quality of each file; those of a recipe that coincide are one point."""
    if not comparison.rows:
        return []
    quality = quality_of(comparison)
    points = []
    near = distinct(
        comparison.files,
        lambda one, other: (
            quality.value(one) == quality.value(other) and abs(one.file_bytes / other.file_bytes - 1) < SAME_SIZE
        ),
    )
    for place, row in enumerate(near):
        value = quality.value(row) if place else quality.float_value
        if value is not None and row.file_bytes > 0:
            better = quality.scale.best * value
            points.append(Point(row.name, row.file_bytes, better, row.accuracy_low, row.accuracy_high, place == 0))
    return points


def accuracy_and_size(comparison: Comparison) -> Markup:
    """The trade-off: what the task measures, or the distance from float where that is nothing."""
    quality, points = quality_of(comparison), points_of(comparison)
    if len(points) < 2:
        return NOTHING
    bars = " Bars are 95 % intervals." if any(p.low is not None for p in points) else ""
    merged = " Files of a recipe that coincide are one point." if len(points) < len(comparison.files) else ""
    chart = both(lambda width: trade_off(points, width, title=quality.title, scale=quality.scale))
    below = " Triangles: below the plot." if leaves_out(points, quality.scale) else ""
    words = f"Filled points on the line: no other file is both smaller and better.{bars}{below}{merged}"
    return _figure(chart, words)


def latency(comparison: Comparison) -> Markup:
    """Bars with quartiles."""
    if all(row.latency_ms is None for row in comparison.rows):
        return NOTHING
    how = next((note for note in footnotes(comparison) if note.startswith("Latency")), "")
    line = float_of(comparison.rows[0])
    words = f"Bars: medians. Dark strokes: quartiles. Dashed line: {line}. {how}"
    return _figure(latency_bars(comparison.rows), words)


def size(comparison: Comparison) -> Markup:
    """The ledger of every file, and its size if it were entropy-coded or nothing but n bits per weight."""
    if not any(row.details.ledger for row in comparison.files):
        return NOTHING
    figure = element("figure", {}, ledger_bars(comparison.files))
    rows: list[tuple[str, ...]] = [
        (
            row.name,
            units.count(row.file_bytes),
            units.count(row.archive_bytes),
            units.decimal(row.code_bits, 2),
            units.decimal(row.entropy_bits, 2),
            units.ratio(row.theoretical_ratio),
            units.ratio(row.file_ratio),
            units.ratio(comparison.rows[0].file_bytes / row.archive_bytes) if row.archive_bytes else units.MISSING,
        )
        for row in comparison.files
    ]
    control = [("zstd -19", comparison.rows[0].zstd_bytes), ("xz -9", comparison.rows[0].xz_bytes)]
    made = [(name, size) for name, size in control if size]
    for name, size in made:
        ratio = units.ratio(comparison.rows[0].file_bytes / size)
        rows.append((f"{name} of float", units.count(size), *[units.MISSING] * 4, ratio, units.MISSING))
    if not made and not any(row.archive_bytes for row in comparison.files):
        return figure
    heads = ("file", "bytes", "as archive", "bits per code", "entropy", "32/n", "smaller", "smaller as archive")
    title = "Entropy-coded, and merely compressed" if made else "Entropy-coded"
    return join([figure, element("h3", {}, title), table(*_filled(heads, rows))])


def weight_errors(comparison: Comparison) -> Markup:
    """The heat map of SQNR, and the weakest layer of every file."""
    rows = distinct(
        [row for row in comparison.files[1:] if any(layer.sqnr_db is not None for layer in row.details.layers)],
        lambda one, other: _shown_errors(one) == _shown_errors(other),
    )
    if not rows:
        return NOTHING
    lines = []
    for row in rows:
        worst = min((x for x in row.details.layers if x.sqnr_db is not None), key=lambda x: x.sqnr_db or 0.0)
        all_layers = units.decimal(row.weight_sqnr_db, 1)
        lines.append((row.name, worst.name, units.decimal(worst.sqnr_db, 1), all_layers))
    words = (
        "Signal-to-quantization-noise ratio of the weights: the darker, the more was lost in that layer. One bit is "
        "worth 6 dB. Codes that were chosen for the outputs of a layer may differ from the float weights on purpose: "
        "judge those files by their KL."
    )
    weakest = table((comparison.named_by, "weakest layer", "its SQNR, dB", "all layers, dB"), lines, text=(1,))
    return _figure(join([both(lambda width: layer_errors(rows, width)), ramp()]), words, weakest)


def work_and_bytes(comparison: Comparison) -> Markup:
    """MACs and bytes by layer, drawn for float and the smallest file, and as a table for every file."""
    if not comparison.layers:
        return NOTHING
    quantized = distinct(
        [row for row in comparison.files[1:] if row.details.layers and not comparison.is_reference(row)],
        lambda one, other: (
            [(x.name, x.bytes, x.stays_float) for x in one.details.layers]
            == [(x.name, x.bytes, x.stays_float) for x in other.details.layers]
        ),
    )
    smallest = min(quantized, key=lambda row: row.file_bytes, default=None)
    known = [{layer.name: layer for layer in row.details.layers} for row in quantized]
    lines = []
    for i, layer in enumerate(comparison.layers):
        line = [str(i + 1), f"{layer.name} ({layer.op})", f"{layer.macs:,}", f"{layer.weight_bytes:,}"]
        for layers in known:
            mine = layers.get(layer.name)
            text = units.MISSING if mine is None else f"{mine.bytes:,}"
            reason = mine.stays_float if mine is not None else ""
            line.append(element("abbr", {"title": f"stays float: {reason}"}, f"{text} *") if reason else text)
        lines.append(line)
    heads = ("no.", "layer", "MACs", "float bytes", *(row.name for row in quantized))
    summary = element("summary", {}, "All layers, with the bytes of their weights in every file")
    star = " Star: weights that stay float." if any("*" in cell for line in lines for cell in line[4:]) else ""
    words = f"Layers in order of execution. 1 MAC is 2 FLOPs.{star}"
    chart = both(lambda width: layer_costs(comparison.layers, smallest, width))
    return _figure(chart, words, element("details", {}, summary, table(heads, lines, text=(1,))))


def weights(comparison: Comparison) -> Markup:
    """Histograms with the code books drawn in."""
    tiles = histogram_tiles(
        distinct(comparison.files, lambda one, other: one.details.histograms == other.details.histograms)
    )
    words = "Gray: the float weights (height: square root of the count). Lines: the values that replace them."
    return join([element("p", {"class": "note"}, words), tiles]) if tiles else NOTHING


def changed_answers(comparison: Comparison) -> Markup:
    """Images that float and a file answer differently."""
    cards = example_cards(comparison.rows)
    words = "Images that a file answers differently than float, up to twelve per file, the most disputed first."
    if any(example.label is not None for row in comparison.rows for example in row.details.examples):
        words += " ✓ is right, ✗ is wrong."
    return join([element("p", {"class": "note"}, words), cards]) if cards else NOTHING


def making(comparison: Comparison) -> Markup:
    """Steps that ran with what each gained, and the numbers that every file stores."""
    steps = []
    for row in comparison.files:
        for step in row.details.steps:
            name = f"{step.name} ({step.note})" if step.note else step.name
            far = (units.divergence(each) for each in (step.before, step.after, step.fitted))
            change = (step.measure, *far, units.decimal(step.seconds, 1))
            steps.append((row.recipe, name, *change))
    counted = [row for row in comparison.files if row.details.parameter_counts]
    kinds = list(dict.fromkeys(kind for row in counted for kind, n in row.details.parameter_counts.items() if n))
    counts = []
    for row in counted:
        numbers = [row.details.parameter_counts.get(kind, 0) for kind in kinds]
        counts.append([row.name, *(f"{n:,}" for n in (*numbers, sum(numbers)))])
    parts = []
    if steps:
        heads = (comparison.named_by, "step", "measure", "before", "after", "after, where fitted", "seconds")
        parts += [element("h3", {}, "Steps, and what each gained"), table(heads, steps, text=(1, 2))]
    if counts:
        names = (kind.replace("_", " ") for kind in kinds)
        parts += [
            element("h3", {}, "How many numbers each file stores"),
            table((comparison.named_by, *names, "all"), counts),
        ]
    return join(parts)


def method(comparison: Comparison) -> Markup:
    """What is needed to reproduce the numbers."""
    e = comparison.environment
    threads = f"{e.threads} thread{'s' * (e.threads != 1)}" if e.threads else "threads chosen by the runtime"
    load = [] if e.load_average is None else [f"load average {e.load_average:.2f}"]
    load += [] if e.cpu_share is None else [f"timing got {e.cpu_share:.0%} of the processor"]
    pairs = {
        "Processor": _list(e.cpu, f"{e.cores} core{'s' * (e.cores != 1)}", *e.cpu_flags),
        "System": _list(e.system, f"Python {e.python}"),
        "Packages": _list(*(f"{name} {version}" for name, version in e.packages.items())),
        "Timing": _list(e.engine, threads, f"batch {e.batch}", f"{e.runs} runs after {e.warmup} warm-up runs",
                        "files in turn, ratios within rounds") if e.runs else "",
        "Target of integer files": e.target,
        "Machine load": _list(*load),
        "Evaluated on": _data(e.data, e.data_images, e.data_sha256),
        "Calibrated on": _data(e.calibration, e.calibration_images, e.calibration_sha256),
        "Model": f"sha256 {e.model_sha256}" if e.model_sha256 else "",
        "Network": f"sha256 {e.graph_sha256} of graph and weights" if e.graph_sha256 else "",
        "Sums of floats": e.kernels,
        "Seeds": _list(*(f"{name} {seed}" for name, seed in e.seeds.items())),
        "Command": e.command,
        "Date": e.created,
    }  # fmt: skip
    lines = [
        part for name, value in pairs.items() if value for part in (element("dt", {}, name), element("dd", {}, value))
    ]
    facts = [WRITTEN, *(CLASSIFIED if comparison.has_labels and comparison.classifies else ()), WEIGHTS]
    facts += [MEMORY] if any(row.load_memory_bytes is not None for row in comparison.rows) else []
    notes = element("ul", {"class": "notes"}, *(element("li", {}, fact) for fact in facts))
    return join([notes, element("dl", {"class": "pairs"}, *lines)])


def title_of(name: str, title: str, comparison: Comparison) -> str:
    """Title of a section, which names what the task measures."""
    if name != "trade-off" or comparison.classifies:
        return title
    return f"{quality_of(comparison).word} against size"


def _filled(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without the columns in which nothing stands."""
    used = [i for i in range(len(heads)) if any(line[i] != units.MISSING for line in lines)]
    return [heads[i] for i in used], [[line[i] for i in used] for line in lines]


def _shown_errors(row: Row) -> list[tuple[str, str]]:
    return [(layer.name, units.decimal(layer.sqnr_db, 1)) for layer in row.details.layers]


def _figure(chart: Markup, caption: str, *after: Markup) -> Markup:
    return element("figure", {}, chart, element("figcaption", {}, caption), *after)


def _data(name: str, images: int, sha256: str) -> str:
    return _list(name, f"{images:,} images" if images else "", f"sha256 {sha256}" if sha256 else "")


def _list(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


# In reading order: (anchor, title, what draws it).
SECTIONS: tuple[tuple[str, str, Callable[[Comparison], Markup]], ...] = (
    ("table", "All files", all_files),
    ("outputs", "Distance of outputs", distance_of_outputs),
    ("trade-off", "Accuracy against size", accuracy_and_size),
    ("latency", "Latency", latency),
    ("layer-time", "Time by layer", time_by_layer),
    ("size", "Where the bytes are", size),
    ("classes", "Answers by class", answers_by_class),
    ("confidence", "Confidence and accuracy", confidence),
    ("examples", "Changed answers", changed_answers),
    ("network", "Bits in the network", network_view),
    ("weight-errors", "Weight errors", weight_errors),
    ("layers", "Work and bytes by layer", work_and_bytes),
    ("weights", "Weights and what replaces them", weights),
    ("making", "How the files were made", making),
    ("method", "How it was measured", method),
)

"""A diagnosis in the terminal: what is wrong, in words; then the figures of every layer, within 80 columns."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lowbit.diagnosis.findings import Diagnosis, FileFigures, Finding, Gain, LayerFigures, TensorRow
from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.reports.tables import fitted, numbers, words

NAMES = ("layer", "compared with")
NOTHING = "Nothing was found that a cure would help."
# What stands below the tables, for headings that say too little.
LEGEND = (
    "alone: {measure} of a file in which only this layer is quantized (~: of the float network with its codes); "
    "without: of one in which all but it are. `lowbit explain far` says what a heading means."
)


def print_diagnosis(found: Diagnosis, *, console: Console | None = None) -> None:
    """Findings first, then what files come to, then layers or tensors."""
    console = console or Console()
    for finding in found.findings:
        _print_finding(finding, found, console)
    if not found.findings:
        console.print(Text(NOTHING, style="green"))
    for line in file_lines(found):
        console.print(line, highlight=False)
    if found.layers:
        console.print(layer_table(found, console.width))
        console.print(Text(LEGEND.format(measure=found.measure), style="dim"))
    if found.tensors:
        console.print(tensor_table(found.tensors, console.width))
        console.print(Text("`lowbit explain added` says what a heading means.", style="dim"))
    for note in found.notes:
        console.print(Text(note, style="dim"))


def _print_finding(finding: Finding, found: Diagnosis, console: Console) -> None:
    console.print(Text.assemble(("! ", "yellow"), (finding.where, "bold"), f": {finding.what}."))
    if finding.gain is not None:
        console.print(Text.assemble("  ", (finding.cure, "green"), f" brings {gain_text(finding.gain, found)}."))
    elif finding.cure:
        console.print(Text.assemble("  ", (finding.cure, "green")))
    else:
        console.print(Text("  No cure that was tried helps.", style="dim"))


def gain_text(gain: Gain, found: Diagnosis) -> str:
    """What a cure brings: 61.2 -> 79.9 for 3 kB."""
    parts = []
    if gain.before.metric is not None and gain.after.metric is not None and found.metric:
        parts.append(f"{found.metric} {_metric(gain.before, found)} -> {_metric(gain.after, found)}")
    parts.append(f"{found.measure} {units.divergence(gain.before.distance)} -> {units.divergence(gain.after.distance)}")
    cost = f"for {units.size(gain.bytes)}" if gain.bytes > 0 else f"and saves {units.size(-gain.bytes)}"
    return f"{', '.join(parts)}, {cost if gain.bytes else 'for no bytes more'}"


def file_lines(found: Diagnosis) -> list[str]:
    """One line for each file that was measured."""
    named = (
        ("float", found.reference),
        (f"{found.recipe}, plain codes", found.plain),
        (f"{found.recipe} as quantized", found.written),
        ("with all cures", found.cured),
    )
    known = [(name, figures) for name, figures in named if figures is not None]
    width = max((len(name) for name, _ in known), default=0)
    lines = []
    for name, figures in known:
        metric = f"{found.metric} {_metric(figures, found)}, " if found.metric else ""
        distance = "" if figures is found.reference else f"{found.measure} {units.divergence(figures.distance)}, "
        lines.append(f"{name:<{width}}  {metric}{distance}{units.size(figures.file_bytes)}")
    if known:
        lines.append(f"judged by {found.samples} samples, calibrated on {found.calibration_samples}")
    if found.error is not None:
        lines.append(f"The outputs of the two files are {units.small(found.error)} apart, by {found.samples} samples.")
    return lines


def layer_table(found: Diagnosis, width: int) -> Table:
    """Every layer in execution order, in so many cells."""
    heads = ("layer", "weights", "input", "SQNR", "far", "clip", "dead", "alone", "without")
    return _table(heads, [_cells(layer) for layer in found.layers], width)


def _cells(layer: LayerFigures) -> tuple[str, ...]:
    return (
        layer.node,
        _error(layer.weight_error, 0),
        _error(layer.input_error, 0),
        units.decimal(layer.sqnr_db, 1),
        f"{layer.channel_ratio:.0f}×" if layer.channel_ratio > 1 else units.MISSING,
        units.percent(layer.clipped, 2) if layer.clipped else units.MISSING,
        str(layer.dead) if layer.dead else units.MISSING,
        _error(layer.alone.distance) if layer.alone else f"~{_error(layer.damage)}",
        _error(layer.without.distance) if layer.without else units.MISSING,
    )


def tensor_table(rows: tuple[TensorRow, ...], width: int) -> Table:
    """The layers of two files, in so many cells."""
    heads = ("layer", "error", "added", "weights lost", "compared with")
    figures = [[_error(value) for value in (row.error, row.added, row.weight_error)] for row in rows]
    named = [(row.node, *each, row.other or units.MISSING) for row, each in zip(rows, figures, strict=True)]
    return _table(heads, named, width)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    return fitted([words(head) if head in NAMES else numbers(head) for head in heads], rows, width)


def _metric(figures: FileFigures, found: Diagnosis) -> str:
    return f"{units.percent(figures.metric)} %" if found.percent else units.figure(figures.metric)


def _error(value: float | None, digits: int = 1) -> str:
    """A quantity over many decades in few cells."""
    if value is None:
        return units.MISSING
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"

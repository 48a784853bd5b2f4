"""What `lowbit inspect --speed` shows: what integers would gain on this processor, layer by layer, and a verdict."""

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from lowbit.measurement.peaks import FLOAT, INTEGER
from lowbit.measurement.roofline import Outlook
from lowbit.reports import units
from lowbit.reports.console import Console

# Cells of all columns but the names, whose ends tell more than their beginnings.
NUMBER_CELLS, FEWEST_NAME_CELLS = 66, 12
SHORT = {FLOAT: "float", INTEGER: "int"}


def print_outlook(outlook: Outlook, *, console: Console | None = None) -> None:
    """The layers, the speed of the processor, and the verdict."""
    console = console or Console()
    room = max(FEWEST_NAME_CELLS, console.width - NUMBER_CELLS)
    rows = [
        (
            layer.node if len(layer.node) <= room else f"…{layer.node[1 - room :]}",
            units.amount(layer.macs),
            units.size(layer.bytes),
            SHORT[layer.arithmetic],
            f"{layer.float_us:,.1f}",
            f"{layer.us:,.1f}",
            layer.limit,
            units.ratio(layer.gain),
        )
        for layer in outlook.layers
    ]
    total = (sum(layer.float_us for layer in outlook.layers), sum(layer.us for layer in outlook.layers))
    rows.append(
        ("all layers", units.amount(sum(layer.macs for layer in outlook.layers)), "", "",
         f"{total[0]:,.1f}", f"{total[1]:,.1f}", "", units.ratio(outlook.gain))
    )  # fmt: skip
    heads = ("layer", "MACs", "bytes", "in", "float µs", "µs", "limit", "gain")
    console.print(_table(heads, rows, left=(0, 3, 6)))
    for layer in outlook.layers:
        if layer.reason:
            console.print(f"{layer.node} stays float: {layer.reason}.", highlight=False, markup=False)
    console.print(f"{outlook.processor} ({', '.join(outlook.flags) or 'flags unknown'})", highlight=False, markup=False)
    console.print(peaks_line(outlook), highlight=False, markup=False)
    console.print(Text(outlook.verdict, style="bold"))


def peaks_line(outlook: Outlook) -> str:
    """The speed of the processor on the small kernels, in one line."""
    peaks, parts = outlook.peaks, []
    for kind in (FLOAT, INTEGER):
        rates = peaks.rates[kind]
        dense, window, depthwise = (f"{1e-9 / s:,.0f}" for s in (rates.mac, rates.window_mac, rates.depthwise_mac))
        parts.append(f"{kind} {dense} G MACs/s ({window} over windows, {depthwise} depthwise)")
    threads = f"{peaks.threads} thread{'s' * (peaks.threads > 1)}"
    return f"Measured with {peaks.engine}, {threads}: {'; '.join(parts)}; memory {peaks.bandwidth / 1e9:,.0f} GB/s."


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for place, head in enumerate(heads):
        side: Literal["left", "right"] = "left" if place in left else "right"
        table.add_column(head, justify=side, no_wrap=True)
    for place, row in enumerate(rows):
        table.add_row(*(Text(cell) for cell in row), end_section=place == len(rows) - 2)
    return table

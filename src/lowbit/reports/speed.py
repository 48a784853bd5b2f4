"""What `lowbit inspect --speed` shows: what integers would gain on this processor, layer by layer, and a verdict."""

from rich.text import Text

from lowbit.measurement.peaks import FLOAT, INTEGER
from lowbit.measurement.roofline import Outlook
from lowbit.printable import several
from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.reports.tables import Column, fitted, numbers, words

SHORT = {FLOAT: "float", INTEGER: "int"}


def print_outlook(outlook: Outlook, *, console: Console | None = None) -> None:
    """The layers, the speed of the processor, and the verdict."""
    console = console or Console()
    rows = [
        (
            layer.node,
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
    columns = [words("layer"), numbers("MACs"), numbers("bytes"), Column("in"), numbers("float µs"), numbers("µs")]
    columns += [Column("limit"), numbers("gain")]
    console.print(fitted(columns, rows, console.width, total=True))
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
    threads = several(peaks.threads, "thread")
    return f"Measured with {peaks.engine}, {threads}: {'; '.join(parts)}; memory {peaks.bandwidth / 1e9:,.0f} GB/s."

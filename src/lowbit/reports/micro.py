"""What a .tflite file takes on a microcontroller, on a terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from lowbit.formats.micro.boards import PROGRAM_FLASH, PROGRAM_RAM, BoardFit
from lowbit.formats.micro.report import WRITE_ONE, Border, MicroReport
from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.reports.inspection import COUNTED, table

KIB = 1024
# Names of the arena's parts, in `Arena.parts`.
PARTS = {
    "activations": "activations",
    "scratch": "scratch of kernels",
    "variables": "variables",
    "tensors": "records of tensors",
    "operators": "records of operators",
    "kernel_records": "multipliers and settings of kernels",
    "interpreter": "interpreter",
    "planning": "room to plan in",
}
MOST_TENSORS = 4  # of those alive at the peak that are named


def print_micro(
    report: MicroReport, fit: BoardFit | None, written: Sequence[Path], console: Console | None = None
) -> None:
    """Flash, RAM, operators and boards (or the one that was asked for), and the files that were written."""
    console = console or Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    flash = [(COUNTED.get(kind, kind), units.count(size)) for kind, size in report.flash.items()]
    console.print(table(("flash", "bytes"), [*flash, ("total", units.count(len(report.content)))], left=1))
    console.print()
    parts = [(PARTS[name], units.count(size)) for name, size in report.arena.parts.items() if size]
    console.print(
        table(("RAM (arena, estimated)", "bytes"), [*parts, ("total", units.count(report.arena.bytes))], left=1)
    )
    for line in (*arena_lines(report), ""):
        say(line)
    operators = [
        (operator.name, units.count(operator.count), operator.method or "no kernel") for operator in report.operators
    ]
    console.print(table(("operator", "number", "resolver"), operators, left=1))
    for line in border_lines(report):
        say(line)
    console.print()
    fits = report.boards if fit is None else (fit,)
    console.print(table(("board", "flash left", "RAM left", "fits"), [_board_row(each) for each in fits], left=1))
    say(
        f"KiB that model and arena leave, with {PROGRAM_FLASH // KIB} KiB of flash and {PROGRAM_RAM // KIB} KiB of RAM "
        "for the program around them."
    )
    for problem in (*report.problems, *unfit(fit)):
        console.print(Text.assemble(("! ", "yellow"), f"{problem}."), soft_wrap=True)
    for line in advice(report):
        say(line)
    for path in written:
        say(f"Wrote {path}.")


def arena_lines(report: MicroReport) -> tuple[str, ...]:
    """Which operator sets the peak, and with which tensors."""
    peak = report.arena.peak
    if not peak.tensors:
        return ()
    shown = ", ".join(
        f"{name or 'unnamed'} {'x'.join(map(str, shape)) or 'scalar'} ({units.count(size)})"
        for name, shape, size in peak.tensors[:MOST_TENSORS]
    )
    more = f" and {len(peak.tensors) - MOST_TENSORS} more" if len(peak.tensors) > MOST_TENSORS else ""
    gaps = report.arena.activations - peak.bytes
    gaps_said = f" The plan has gaps of {units.count(gaps)} bytes." if gaps else ""
    return (
        f"Peak: operator {peak.place + 1}, {peak.operator}, with {units.count(peak.bytes)} bytes in use: {shown}{more}."
        f"{gaps_said} Scratch is that of {report.kernels} kernels.",
    )


def border_lines(report: MicroReport) -> tuple[str, ...]:
    """What goes in and what comes out."""
    return tuple(
        f"{kind} {border.name}: {_described(border)}."
        for kind, each in (("Input", report.inputs), ("Output", report.outputs))
        for border in each
    )


def unfit(fit: BoardFit | None) -> tuple[str, ...]:
    """What one board lacks; nothing if it fits."""
    if fit is None or fit.fits:
        return ()
    lacks = [
        f"{units.count(-left / KIB)} KiB of {what}"
        for left, what in ((fit.flash_left, "flash"), (fit.ram_left, "RAM"))
        if left < 0
    ]
    return (f"{fit.board.title} lacks {' and '.join(lacks)}",)


def advice(report: MicroReport) -> tuple[str, ...]:
    """What to do about operators in float."""
    in_float = sum(operator.in_float for operator in report.operators)
    if not in_float:
        return ()
    some = "One operator reads floats" if in_float == 1 else f"{in_float} operators read floats"
    return (f"{some}, which takes time and RAM. In int8 throughout: `{WRITE_ONE}`.",)


def _described(border: Border) -> str:
    codes = "" if border.scale is None else f", scale {border.scale:.6g}, zero point {border.zero_point}"
    return f"{border.dtype} {'x'.join(map(str, border.shape)) or 'scalar'}{codes}"


def _board_row(fit: BoardFit) -> tuple[str, ...]:
    flash, ram = (units.count(size / KIB) for size in (fit.flash_left, fit.ram_left))
    return f"{fit.board.title} ({fit.name})", flash, ram, "yes" if fit.fits else "no"

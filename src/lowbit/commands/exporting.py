"""`export`: a .tflite file for a microcontroller, and whether it fits on one."""

from pathlib import Path
from typing import Annotated

import typer

from lowbit.commands.options import JsonOption, StrictOption
from lowbit.console import print_json
from lowbit.errors import DowngradeError


def export(
    model: Annotated[Path, typer.Argument(help="A .tflite file.", metavar="MODEL")],
    c_array: Annotated[
        Path | None,
        typer.Option(help="Write its bytes as a C array (.cc, .cpp or .c), and a header beside it.", metavar="FILE"),
    ] = None,
    resolver: Annotated[
        Path | None,
        typer.Option(help="Write the operators it needs as a C++ header for TensorFlow Lite Micro.", metavar="FILE"),
    ] = None,
    board: Annotated[
        str | None, typer.Option(help="Check this board only: {lowbit.formats.micro.boards:BOARDS}.", metavar="NAME")
    ] = None,
    kernels: Annotated[
        str, typer.Option(help="Whose scratch memory counts: cmsis-nn (Arm Cortex-M) or reference.")
    ] = "cmsis-nn",
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a .tflite file to a microcontroller: C source, operators, flash, RAM, and the boards it fits on.

    With --strict it is an error if an operator has no kernel there, or if the file does not fit on the --board.
    """
    from lowbit.formats.micro.report import micro_report
    from lowbit.formats.micro.source import check_outputs, write_c_array, write_resolver
    from lowbit.reports.micro import print_micro, unfit

    check_outputs(c_array, resolver)
    report = micro_report(model, kernels=kernels)
    fit = None if board is None else report.on(board)
    wrong = [*report.problems, *unfit(fit)]
    if strict and wrong:
        raise DowngradeError(
            f"will not run as asked: {'; '.join(wrong)}.", where=str(model), remedy="Or leave --strict out."
        )
    written = [*write_c_array(report, c_array)] if c_array is not None else []
    written += [write_resolver(report, resolver)] if resolver is not None else []
    if as_json:
        body = report.to_json()
        kept = body["boards"] if board is None else [row for row in body["boards"] if row["name"] == board]
        print_json({**body, "boards": kept, "written": list(map(str, written))})
    else:
        print_micro(report, fit, written)

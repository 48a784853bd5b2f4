"""`quantize`: one model, one recipe, one file."""

from pathlib import Path
from typing import Annotated

import typer

from lowbit.commands.options import (
    AffineOption,
    CalibrationOption,
    EffortOption,
    GroupOption,
    InputLayoutOption,
    InputOption,
    JsonOption,
    LayoutOption,
    LimitOption,
    MeanOption,
    ModelArgument,
    PerOption,
    RecipeOption,
    SizeOption,
    StdOption,
    StrictOption,
    TargetOption,
)
from lowbit.console import check_format, load_model, open_data, print_json, progress_bar, read_file_ledger


def quantize(
    model: ModelArgument,
    recipe: RecipeOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.", metavar="FILE")],
    calibration: CalibrationOption = None,
    per: PerOption = None,
    group_size: GroupOption = None,
    affine: AffineOption = None,
    target: TargetOption = None,
    ranges: Annotated[
        str | None, typer.Option(help="Range rule of activations: minmax, percentile, mse or entropy.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="onnx or litert; by the name of the output (.tflite) if left out.")
    ] = None,
    input: InputOption = "float32",
    input_layout: InputLayoutOption = "NHWC",
    output_type: Annotated[
        str, typer.Option(help="What the file gives: float32, or int8 or uint8 codes (LiteRT only).")
    ] = "float32",
    effort: EffortOption = "balanced",
    limit: LimitOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Quantize a model and write the file."""
    from lowbit.quantization.quantize import check_form
    from lowbit.quantization.quantize import quantize as run
    from lowbit.quantization.recipes import parse_recipe
    from lowbit.reports.inspection import print_written, written_json

    check_format(to, output)
    form = {"input": input, "input_layout": input_layout.upper(), "output_type": output_type}
    wanted = parse_recipe(
        recipe,
        per=per,
        group_size=group_size,
        symmetric=None if affine is None else not affine,
        ranges=ranges,
        target=target,
    )
    with progress_bar(as_json) as progress:
        loaded = load_model(model, size=size, mean=mean, std=std, layout=layout)
        check_form(loaded, output, **form)
        images = open_data(calibration, loaded, limit) if calibration else None
        quantized = run(loaded, wanted, calibration=images, effort=effort, strict=strict, progress=progress)
        quantized.save(output, **form)
    ledger = read_file_ledger(output)
    if as_json:
        print_json(written_json(quantized, output, ledger, source_bytes=model.stat().st_size))
    else:
        print_written(quantized, output, ledger, source_bytes=model.stat().st_size)

"""`quantize`: one model, one recipe, one file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    ShortNamesOption,
    SizeOption,
    StdOption,
    StepsOption,
    StrictOption,
    TargetOption,
    listed,
)
from lowbit.console import load_model, open_data, print_json, progress_bar, read_file_ledger

if TYPE_CHECKING:
    from lowbit.graph.model import Model
    from lowbit.quantization.planning.recipes import Recipe


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
        str | None,
        typer.Option(help="Range rule of activations: minmax, percentile, mse, output or entropy."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="onnx, openvino (ONNX as it runs fastest there) or litert; by the output's name if left out."
        ),
    ] = None,
    input: InputOption = "float32",
    input_layout: InputLayoutOption = "NHWC",
    output_type: Annotated[
        str, typer.Option(help="What the file gives: float32, or int8 or uint8 codes (LiteRT only).")
    ] = "float32",
    short_names: ShortNamesOption = False,
    effort: EffortOption = "balanced",
    steps: StepsOption = None,
    limit: LimitOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Quantize a model and write the file."""
    from lowbit.formats.file_form import FileForm
    from lowbit.quantization.planning.recipes import parse_recipe
    from lowbit.quantization.quantize import quantize as run
    from lowbit.quantization.quantized import check_form
    from lowbit.reports.inspection import print_written, written_json

    form = FileForm(to, input, input_layout.upper(), output_type, short_names)
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
        check_form(loaded, wanted, output, form)
        images = open_data(calibration, loaded, limit) if calibration else None
        verdict, faster = _verdict(loaded, wanted, output)
        if not faster:
            # Said before the work is done, and where it does not disturb what standard output is read for.
            typer.echo(f"Note: {verdict}", err=True)
        quantized = run(
            loaded,
            wanted,
            calibration=images,
            effort=effort,
            steps=listed(steps),
            strict=strict,
            progress=progress,
        )
        quantized.save(output, form)
    ledger = read_file_ledger(output)
    if as_json:
        written = written_json(quantized, output, ledger, source_bytes=model.stat().st_size)
        print_json({**written, "verdict": verdict})
    else:
        print_written(quantized, output, ledger, source_bytes=model.stat().st_size)


def _verdict(model: "Model", recipe: "Recipe", output: Path) -> tuple[str, bool]:
    """What integers will bring on this processor, and whether they are worth it; nothing where nobody can tell."""
    from lowbit.errors import ModelError
    from lowbit.formats.opening import is_litert
    from lowbit.measurement.roofline import measure_peaks, outlook
    from lowbit.quantization.planning.target import NATIVE, resolved

    if not recipe.integer or is_litert(output) or resolved(recipe.target) != resolved(NATIVE):
        return "", True
    try:
        found = outlook(model, measure_peaks(), recipe=recipe)
    except ModelError:
        # No sizes, or nothing to quantize: the work itself says what is wrong with the model.
        return "", True
    return found.verdict, found.faster

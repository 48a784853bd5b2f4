"""`measure`, `compare` and `demo`: files side by side."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowbit.commands.options import (
    BatchOption,
    CalibrationOption,
    ControlOption,
    DataOption,
    EffortOption,
    EmulateOption,
    EngineOption,
    FolderOption,
    InputLayoutOption,
    InputOption,
    JsonOption,
    LayoutOption,
    LimitOption,
    MeanOption,
    ModelArgument,
    RecipesOption,
    RunsOption,
    SizeOption,
    StdOption,
    StrictOption,
    TargetOption,
    ThreadsOption,
)
from lowbit.console import load_measured, load_model, open_data, progress_bar, required

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowbit.measurement.results import Comparison
    from lowbit.progress import Progress
    from lowbit.quantization.planning.recipes import Recipe


def measure(
    files: Annotated[
        list[Path],
        typer.Argument(help="ONNX or .tflite files of one model, the float ONNX one first.", metavar="FILE..."),
    ],
    data: DataOption = None,
    engine: EngineOption = "onnxruntime",
    threads: ThreadsOption = 1,
    batch: BatchOption = 1,
    runs: RunsOption = 200,
    emulate: EmulateOption = "",
    control: ControlOption = False,
    limit: LimitOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write results and report.html here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure any ONNX and .tflite files side by side: accuracy, loss, size, latency, memory."""
    from lowbit.measurement.conditions import Conditions
    from lowbit.measurement.measure import measure as run

    images_from = required(data, "--data")
    with progress_bar(as_json) as progress:
        loaded = load_measured(files, size=size, mean=mean, std=std, layout=layout)
        images = open_data(images_from, loaded, limit)
        comparison = run(
            files,
            images,
            conditions=Conditions(
                engine=engine, threads=threads, batch=batch, runs=runs, emulate=emulate, control=control
            ),
            progress=progress,
        )
    if out is not None:
        from lowbit.files import staged_folder
        from lowbit.reports.files import write_reports

        with staged_folder(out) as stage:
            write_reports(comparison, stage)
    _show(comparison, as_json)


def compare(
    model: ModelArgument,
    data: DataOption = None,
    calibration: CalibrationOption = None,
    recipes: RecipesOption = None,
    out: FolderOption = Path("lowbit-out"),
    target: TargetOption = None,
    input: InputOption = "float32",
    input_layout: InputLayoutOption = "NHWC",
    engine: EngineOption = "onnxruntime",
    threads: ThreadsOption = 1,
    batch: BatchOption = 1,
    runs: RunsOption = 200,
    emulate: EmulateOption = "",
    control: ControlOption = False,
    effort: EffortOption = "balanced",
    limit: LimitOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    same_data: Annotated[
        bool, typer.Option("--same-data", help="Insist on evaluating with calibration images.")
    ] = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Quantize by every recipe and measure all files: the table, results.json, results.csv and report.html."""
    from lowbit.formats.file_form import FileForm
    from lowbit.measurement.compare import compare as run
    from lowbit.measurement.conditions import CompareOptions, Conditions

    images_from = required(data, "--data")
    loaded = load_model(model, size=size, mean=mean, std=std, layout=layout)
    images = open_data(images_from, loaded, limit)
    seen = open_data(calibration, loaded, None) if calibration else None
    chosen = _chosen(recipes, target)
    _write(
        out,
        as_json,
        lambda folder, progress: run(
            loaded,
            images,
            calibration=seen,
            recipes=chosen,
            folder=folder,
            options=CompareOptions(
                effort=effort,
                form=FileForm(input=input, layout=input_layout.upper()),
                same_data=same_data,
                strict=strict,
            ),
            conditions=Conditions(
                engine=engine, threads=threads, batch=batch, runs=runs, emulate=emulate, control=control
            ),
            progress=progress,
        ),
    )


def demo(
    out: FolderOption = Path("lowbit-demo"),
    recipes: RecipesOption = None,
    threads: ThreadsOption = 1,
    runs: RunsOption = 200,
    effort: EffortOption = "fast",
    as_json: JsonOption = False,
) -> None:
    """The whole study on the built-in model and images: nothing to download, nothing to prepare."""
    from lowbit.measurement.compare import compare as run
    from lowbit.measurement.conditions import CompareOptions, Conditions
    from lowbit.training.assets import built_in_model

    loaded = load_model(built_in_model())
    images = open_data("builtin:test", loaded, None)
    seen = open_data("builtin:calibration", loaded, None)
    chosen = _chosen(recipes, None)
    _write(
        out,
        as_json,
        lambda folder, progress: run(
            loaded,
            images,
            calibration=seen,
            recipes=chosen,
            folder=folder,
            options=CompareOptions(effort=effort),
            conditions=Conditions(threads=threads, runs=runs, control=True),
            progress=progress,
        ),
    )


def _chosen(recipes: str | None, target: str | None) -> "list[Recipe]":
    """The recipes that a user named, those that compute in integers for the target."""
    from lowbit.quantization.planning.recipes import STUDY, parse_recipe

    names = [name.strip() for name in recipes.split(",") if name.strip()] if recipes else STUDY
    chosen = [parse_recipe(name) for name in names]
    integers = [recipe.integer for recipe in chosen]
    # Where no recipe computes in integers all of them are asked, and the first says that it has no target.
    return [
        parse_recipe(recipe, target=target) if whole or not any(integers) else recipe
        for recipe, whole in zip(chosen, integers, strict=True)
    ]


def _write(out: Path, as_json: bool, compared: "Callable[[Path, Progress], Comparison]") -> None:
    """Compare in a staged folder, so that a failed run leaves nothing behind; the reports stand beside the files."""
    from lowbit.files import staged_folder
    from lowbit.reports.files import write_reports

    with staged_folder(out) as stage:
        with progress_bar(as_json) as progress:
            comparison = compared(stage, progress)
        write_reports(comparison, stage)
    _show(comparison, as_json)
    if not as_json:
        typer.echo(f"Files, results.json, results.csv and report.html are in {out}.")


def _show(comparison: "Comparison", as_json: bool) -> None:
    from lowbit.reports.terminal import print_comparison

    if as_json:
        sys.stdout.write(comparison.to_json())
    else:
        print_comparison(comparison)

"""`measure`, `compare` and `demo`: files side by side."""

import contextlib
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowbit.commands.opening import check_data, load_measured, load_model, open_data
from lowbit.commands.options import (
    CalibrationOption,
    ConditionOptions,
    DataOptions,
    EffortOption,
    FolderOption,
    InputLayoutOption,
    InputOption,
    JsonOption,
    ModelArgument,
    PreprocessingOptions,
    RecipesOption,
    RuleOptions,
    RunsOption,
    StrictOption,
    TargetOption,
    ThreadsOption,
    words,
)
from lowbit.console import progress_bar, say
from lowbit.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lowbit.measurement.conditions import CompareOptions
    from lowbit.measurement.results import Comparison
    from lowbit.progress import Progress
    from lowbit.quantization.planning.recipes import Recipe


@dataclass(frozen=True)
class StudyOptions:
    """Which files are made, and how."""

    recipes: RecipesOption = None
    out: FolderOption = Path("lowbit-out")
    target: TargetOption = None
    input: InputOption = "float32"
    input_layout: InputLayoutOption = "NHWC"
    effort: EffortOption = "balanced"
    same_data: Annotated[bool, typer.Option("--same-data", help="Allow evaluation on calibration images.")] = False
    strict: StrictOption = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep the files of finished recipes in the output folder until all is done, and take those that a "
            "run with this option left there when it was stopped.",
        ),
    ] = False

    def options(self, rules: RuleOptions) -> "CompareOptions":
        """The same as the library takes it."""
        from lowbit.formats.file_form import FileForm
        from lowbit.keeping import KEPT
        from lowbit.measurement.conditions import CompareOptions

        form = FileForm(input=self.input, layout=self.input_layout.upper())
        kept = self.out / KEPT if self.resume else None
        return CompareOptions(self.effort, form, self.same_data, self.strict, rules.rules, kept)


def measure(
    files: Annotated[
        list[Path],
        typer.Argument(help="ONNX or .tflite files of one model, the float ONNX file first.", metavar="FILE"),
    ],
    images: DataOptions,
    conditions: ConditionOptions,
    preprocessing: PreprocessingOptions,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for results and report.", metavar="DIR")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure ONNX and .tflite files side by side: the task's metrics, distance from float, size, latency, memory."""
    from lowbit.measurement.measure import measure as run

    source = check_data(images)

    def measured(progress: "Progress", folder: Path | None = None) -> "Comparison":
        loaded = load_measured(files, preprocessing)
        evaluation = open_data(source, loaded, preprocessing, limit=images.limit, labels=images.labels)
        return run(files, evaluation, conditions=conditions.conditions(), progress=progress)

    if out is not None:
        _show(_written(measured, out, as_json), as_json)
        return
    with progress_bar(as_json) as progress:
        comparison = measured(progress)
    _show(comparison, as_json)


def compare(
    model: ModelArgument,
    images: DataOptions,
    study: StudyOptions,
    rules: RuleOptions,
    conditions: ConditionOptions,
    preprocessing: PreprocessingOptions,
    calibration: CalibrationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Quantize by every recipe and measure all files: a table, results.json, results.csv and report.html."""
    from lowbit.keeping import KEPT, forget
    from lowbit.measurement.compare import compare as run

    source = check_data(images)
    loaded = load_model(model, preprocessing)
    comparison = partial(
        run,
        loaded,
        open_data(source, loaded, preprocessing, limit=images.limit, labels=images.labels),
        calibration=open_data(calibration, loaded, preprocessing) if calibration else None,
        recipes=_recipes(study.recipes, study.target, rules.rules),
        options=study.options(rules),
        conditions=conditions.conditions(),
    )
    _write(comparison, study.out, as_json)
    forget(study.out / KEPT)


def demo(
    out: FolderOption = Path("lowbit-demo"),
    recipes: RecipesOption = None,
    threads: ThreadsOption = 1,
    runs: RunsOption = 200,
    effort: EffortOption = "fast",
    as_json: JsonOption = False,
) -> None:
    """Run the whole study on the built-in model and images, without any download or preparation."""
    from lowbit.measurement.compare import compare as run
    from lowbit.measurement.conditions import CompareOptions, Conditions
    from lowbit.training.assets import built_in_model

    loaded = load_model(built_in_model())
    comparison = partial(
        run,
        loaded,
        open_data("builtin:test", loaded),
        calibration=open_data("builtin:calibration", loaded),
        recipes=_recipes(recipes, None, ()),
        options=CompareOptions(effort=effort),
        conditions=Conditions(threads=threads, runs=runs, control=True),
    )
    _write(comparison, out, as_json)


def _recipes(names: str | None, target: str | None, rules: "Sequence[str]") -> "list[Recipe]":
    """The recipes that a user named, those that compute in integers, perhaps by rules, for the target."""
    from lowbit.quantization.planning.recipes import STUDY, parse_recipe
    from lowbit.quantization.planning.rules import parse_rule, with_activations

    chosen = [parse_recipe(name) for name in (words(names) if names else STUDY)]
    # If no recipe computes in integers, the first one refuses the target.
    ruled = any(parse_rule(rule).recipe.integer for rule in rules)
    some = ruled or any(recipe.integer for recipe in chosen)
    return [
        with_activations(recipe, rules, ranges=None, target=target) if recipe.integer or ruled or not some else recipe
        for recipe in chosen
    ]


def _write(comparison: "Callable[..., Comparison]", out: Path, as_json: bool) -> None:
    """Compare, with model files and reports in a folder, and show the table."""
    _show(_written(comparison, out, as_json), as_json)
    if not as_json:
        say(f"Model files, results.json, results.csv and report.html are in {out}.")


def _written(comparison: "Callable[..., Comparison]", out: Path, as_json: bool) -> "Comparison":
    """Compare in a staged folder, so that a failed run leaves nothing behind; the reports go there too.

    Raises:
        OutputError: the folder cannot be written. Finished results are shown then, and kept elsewhere if possible.
    """
    from lowbit.reports.files import REPORTS, write_reports
    from lowbit.staging import keep, staged_folder

    finished = None
    try:
        with staged_folder(out, REPORTS) as stage:
            with progress_bar(as_json) as progress:
                finished = comparison(folder=stage, progress=progress)
            write_reports(finished, stage)
    except OutputError as error:
        if finished is not None:
            if (place := keep(error)) is not None:
                with contextlib.suppress(OutputError):
                    write_reports(finished, place)
            if not as_json:  # which is one object, the error
                _show(finished, as_json)
        raise
    return finished


def _show(comparison: "Comparison", as_json: bool) -> None:
    from lowbit.reports.files import results_json
    from lowbit.reports.terminal import print_comparison

    if as_json:
        sys.stdout.write(results_json(comparison))
    else:
        print_comparison(comparison)

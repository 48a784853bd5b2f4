"""`diagnose`: what is wrong, and what helps."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowbit.commands.opening import check_data, load_model, open_data
from lowbit.commands.options import (
    CalibrationOption,
    DataOptions,
    EffortOption,
    JsonOption,
    ModelArgument,
    PreprocessingOptions,
    RecipeOptions,
)
from lowbit.console import print_json, progress_bar, say
from lowbit.errors import SchemeError

if TYPE_CHECKING:
    from lowbit.data.dataset import Dataset
    from lowbit.graph.model import Model

DEFAULT = "int8"


@dataclass(frozen=True)
class DoctorOptions:
    """What is looked at besides the float model, and what becomes of it."""

    calibration: CalibrationOption = None
    effort: EffortOption = "fast"
    against: Annotated[
        Path | None,
        typer.Option(help="A file that any tool made of the model: compare the two layer by layer.", metavar="FILE"),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option("--apply", help="Write the plan with the cures in it, for `quantize --plan`.", metavar="FILE"),
    ] = None


def diagnose(
    model: ModelArgument,
    images: DataOptions,
    recipe: RecipeOptions,
    doctor: DoctorOptions,
    preprocessing: PreprocessingOptions,
    as_json: JsonOption = False,
) -> None:
    """Say which layers, samples or settings do harm, why, and what helps, measured on the files written."""
    from lowbit.diagnosis.diagnosis import diagnose as run
    from lowbit.files import check_ending
    from lowbit.quantization.planning.plan_file import PLANS, write_plan
    from lowbit.reports.diagnosis import print_diagnosis

    source = check_data(images)
    if doctor.out is not None:
        check_ending(doctor.out, PLANS)
    if recipe.plan is not None or (doctor.against is not None and (doctor.out is not None or recipe.given)):
        raise SchemeError(
            "a plan cannot be diagnosed." if recipe.plan is not None else "--against compares two files as they are.",
            remedy="Give the recipe and the rules that it was made with."
            if recipe.plan
            else "Leave --apply, the recipe and rules out.",
        )
    with progress_bar(as_json) as progress:
        loaded = load_model(model, preprocessing)
        found = run(
            loaded,
            open_data(source, loaded, preprocessing, limit=images.limit, labels=images.labels),
            (recipe if recipe.recipe else dataclasses.replace(recipe, recipe=DEFAULT)).parsed(),
            rules=recipe.rules,
            calibration=_calibration(doctor.calibration, loaded, preprocessing),
            against=doctor.against,
            effort=doctor.effort,
            progress=progress,
        )
    if doctor.out is not None and found.plan is not None:
        write_plan(found.plan, loaded, doctor.out)
    if as_json:
        print_json(found.to_data())
        return
    print_diagnosis(found)
    if doctor.out is not None:
        say(f"Wrote {doctor.out}: follow it with `lowbit quantize {model} --plan {doctor.out}`.")


def _calibration(source: str | None, model: "Model", preprocessing: PreprocessingOptions) -> "Dataset | str | None":
    """Calibration samples; what cannot be opened is left to the diagnosis, which says what is wrong with it."""
    from lowbit.errors import DataError

    if source is None:
        return None
    try:
        return open_data(source, model, preprocessing)
    except DataError:
        return source

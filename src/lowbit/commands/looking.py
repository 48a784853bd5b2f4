"""`inspect`, `plan` and `recipes`: look before anything is changed."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowbit.commands.opening import onnx_form, read_file_ledger
from lowbit.commands.options import (
    BatchOption,
    ControlOption,
    EngineOption,
    InputSizeOption,
    JsonOption,
    ModelArgument,
    RecipeOptions,
    SearchOptions,
    ThreadsOption,
)
from lowbit.console import print_json, progress_bar

if TYPE_CHECKING:
    from lowbit.formats.ledger import Ledger
    from lowbit.formats.size_report import Sizes
    from lowbit.graph.model import Model


@dataclass(frozen=True)
class SpeedOptions:
    """Whether expected speed is shown, and for which conditions."""

    speed: Annotated[
        bool, typer.Option("--speed", help="Show what int8 would gain on this processor, layer by layer, and why.")
    ] = False
    engine: EngineOption = "onnxruntime"
    threads: ThreadsOption = 1
    batch: BatchOption = 1


@dataclass(frozen=True)
class SizeOptions:
    """What is counted besides the bytes of the file."""

    coded: Annotated[
        bool, typer.Option("--coded", help="Also entropy-code the file and show where its bytes are then.")
    ] = False
    against: Annotated[Path | None, typer.Option(help="The float file that it was made from.", metavar="FLOAT")] = None
    control: ControlOption = False


def inspect(
    model: ModelArgument,
    speed: SpeedOptions,
    size: SizeOptions,
    input_size: InputSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show shapes, parameters, MACs, FLOPs, bytes and weight ranges per layer and in total; or the expected speed."""
    from lowbit.commands.opening import load_sized
    from lowbit.errors import EngineError
    from lowbit.formats.stored_cost import with_stored_weights
    from lowbit.graph.cost import cost
    from lowbit.reports.inspection import inspection_json, print_inspection, print_ledger
    from lowbit.reports.sizes import print_sizes, sizes_json

    if not speed.speed and (speed.engine, speed.threads, speed.batch) != ("onnxruntime", 1, 1):
        raise EngineError("--engine, --threads and --batch need --speed.", remedy="Add --speed, or leave them out.")
    loaded = load_sized(model, input_size)
    if speed.speed:
        _show_speed(loaded, speed, as_json)
        return
    counted = cost(loaded)
    with onnx_form(model, loaded) as file:
        ledger = read_file_ledger(file)
        counted = with_stored_weights(counted, file, ledger)
        sizes = _sizes(file, ledger, size, as_json)
    if as_json:
        print_json({**inspection_json(loaded, counted, ledger), "sizes": sizes and sizes_json(sizes)})
        return
    print_inspection(loaded, counted, ledger)
    print_ledger(ledger) if sizes is None else print_sizes(sizes)


def _show_speed(model: "Model", speed: SpeedOptions, as_json: bool) -> None:
    """Measure the processor, and show what integers would gain on each engine."""
    from lowbit.engines import ENGINES, chosen_engines
    from lowbit.measurement.forecast import forecast
    from lowbit.reports.speed import print_outlook

    with progress_bar(as_json) as progress:
        outlooks = {
            name: forecast(model, engine=name, threads=speed.threads, batch=speed.batch, progress=progress)
            for name in chosen_engines(speed.engine)
        }
    if not as_json:
        for each in outlooks.values():
            print_outlook(each)
    elif speed.engine in ENGINES:
        print_json({"model": model.source, **outlooks[speed.engine].to_json()})
    else:
        print_json({"model": model.source, "engines": {name: each.to_json() for name, each in outlooks.items()}})


def _sizes(model: Path, ledger: "Ledger", size: SizeOptions, quiet: bool) -> "Sizes | None":
    """The bytes of the file, and what coding would make of them; None if its weights are in another file.

    Raises:
        ModelError: coding was asked for, and the weights are in another file.
    """
    from lowbit.errors import ModelError
    from lowbit.files import read_model_file
    from lowbit.formats.size_report import sizes

    data = read_model_file(model)
    if len(data) == ledger.total:
        original = None if size.against is None else read_model_file(size.against)
        with progress_bar(quiet) as progress:
            return sizes(data, against=original, coded=size.coded, control=size.control, progress=progress)
    if size.coded or size.control or size.against is not None:
        raise ModelError(
            "its weights are in another file.",
            where=str(model),
            remedy="Save the model as one file first: `lowbit.save(lowbit.load(path), new_path)` does that.",
        )
    return None


def plan(
    model: ModelArgument,
    recipe: RecipeOptions,
    search: SearchOptions,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write the plan, for `quantize --plan`.", metavar="FILE")
    ] = None,
    input_size: InputSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a recipe will do to each tensor and node, and why, before anything is changed."""
    from lowbit.commands.opening import decided, load_sized
    from lowbit.files import check_ending
    from lowbit.quantization.planning.plan_file import PLANS, plan_with_model, write_plan
    from lowbit.reports.plans import print_plan

    if out is not None:
        check_ending(out, PLANS)
    loaded = load_sized(model, input_size)
    decision = decided(loaded, recipe, search, with_images=True)
    if as_json:
        print_json(plan_with_model(decision, loaded))
    else:
        print_plan(decision)
    if search.strict:
        decision.require_all()
    if out is not None:
        write_plan(decision, loaded, out)


def recipes(as_json: JsonOption = False) -> None:
    """List all recipes with the bit widths that they take."""
    from lowbit.quantization.planning.recipes import RECIPES, written_name
    from lowbit.reports.tables import print_pairs

    if as_json:
        print_json(
            [
                {"recipe": family, "bits": [widths[0], widths[-1]], "what": what}
                for family, (widths, _, what) in RECIPES.items()
            ]
        )
        return
    print_pairs((written_name(family), what) for family, (_, _, what) in RECIPES.items())

"""`inspect`, `plan` and `recipes`: look before anything is touched."""

from pathlib import Path
from typing import Annotated

import typer

from lowbit.commands.options import (
    AffineOption,
    BatchOption,
    ControlOption,
    EffortOption,
    EngineOption,
    GroupOption,
    JsonOption,
    ModelArgument,
    PerOption,
    RecipeOption,
    StepsOption,
    StrictOption,
    TargetOption,
    ThreadsOption,
    listed,
)
from lowbit.console import print_json, progress_bar, read_file_ledger


def inspect(
    model: ModelArgument,
    speed: Annotated[
        bool, typer.Option("--speed", help="What int8 would bring on this processor, layer by layer, and why.")
    ] = False,
    engine: EngineOption = "onnxruntime",
    threads: ThreadsOption = 1,
    batch: BatchOption = 1,
    coded: Annotated[
        bool, typer.Option("--coded", help="Also entropy-code the file and say what each kind of bytes takes then.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option("--against", help="The float file that it was made from.", metavar="FLOAT")
    ] = None,
    control: ControlOption = False,
    as_json: JsonOption = False,
) -> None:
    """Per layer and in total: shapes, parameters, MACs, FLOPs, bytes and ranges of the weights; or expected speed."""
    from lowbit.errors import EngineError, ModelError
    from lowbit.formats.opening import load, read_file
    from lowbit.formats.size_report import sizes
    from lowbit.graph.cost import cost
    from lowbit.reports.inspection import inspection_json, print_inspection, print_ledger
    from lowbit.reports.sizes import print_sizes, sizes_json

    if not speed and (engine, threads, batch) != ("onnxruntime", 1, 1):
        raise EngineError(
            "--engine, --threads and --batch say how speed is looked at.", remedy="Add --speed, or leave them out."
        )
    loaded = load(model)
    if speed:
        from lowbit.engines import ENGINES, chosen_engines
        from lowbit.measurement.roofline import measure_peaks, outlook
        from lowbit.reports.speed import print_outlook

        with progress_bar(as_json) as progress:
            found = {
                name: outlook(loaded, measure_peaks(engine=name, threads=threads, progress=progress), batch=batch)
                for name in chosen_engines(engine)
            }
        if not as_json:
            for each in found.values():
                print_outlook(each)
        elif engine in ENGINES:
            print_json({"model": loaded.source, **found[engine].to_json()})
        else:
            print_json({"model": loaded.source, "engines": {name: each.to_json() for name, each in found.items()}})
        return
    counted = cost(loaded)
    ledger = read_file_ledger(model)
    data = read_file(model)
    seen = None
    if len(data) == ledger.total:
        original = None if against is None else read_file(against)
        with progress_bar(as_json) as progress:
            seen = sizes(data, against=original, coded=coded, control=control, progress=progress)
    elif coded or control or against is not None:
        raise ModelError(
            "its weights are in another file.",
            where=str(model),
            remedy="Save the model as one file first: `lowbit.save(lowbit.load(path), new_path)` does.",
        )
    if as_json:
        print_json({**inspection_json(loaded, counted, ledger), "sizes": seen and sizes_json(seen)})
        return
    print_inspection(loaded, counted, ledger)
    print_ledger(ledger) if seen is None else print_sizes(seen)


def plan(
    model: ModelArgument,
    recipe: RecipeOption,
    per: PerOption = None,
    group_size: GroupOption = None,
    affine: AffineOption = None,
    target: TargetOption = None,
    effort: EffortOption = "balanced",
    steps: StepsOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """What a recipe will do to each tensor and node, and why, before anything is touched."""
    from lowbit.formats.opening import load
    from lowbit.quantization.planning.plan import plan as make_plan
    from lowbit.quantization.planning.recipes import parse_recipe
    from lowbit.reports.inspection import print_plan

    wanted = parse_recipe(
        recipe, per=per, group_size=group_size, symmetric=None if affine is None else not affine, target=target
    )
    decision = make_plan(load(model), wanted, effort=effort, steps=listed(steps))
    if as_json:
        print_json(decision.to_json())
    else:
        print_plan(decision)
    if strict:
        decision.require_all()


def recipes(as_json: JsonOption = False) -> None:
    """All recipes, with the widths they take."""
    from lowbit.quantization.planning.recipes import RECIPES

    if as_json:
        print_json(
            [
                {"recipe": family, "bits": [widths[0], widths[-1]], "what": what}
                for family, (widths, _, what) in RECIPES.items()
            ]
        )
        return
    for family, (widths, _, what) in RECIPES.items():
        name = family if len(widths) == 1 else f"{family}{widths[0]}..{widths[-1]}"
        typer.echo(f"{name:<14} {what}")

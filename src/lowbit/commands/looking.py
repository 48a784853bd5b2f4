"""`inspect`, `plan` and `recipes`: look before anything is touched."""

import typer

from lowbit.commands.options import (
    AffineOption,
    GroupOption,
    JsonOption,
    ModelArgument,
    PerOption,
    RecipeOption,
    StrictOption,
    TargetOption,
)
from lowbit.console import print_json, read_file_ledger


def inspect(
    model: ModelArgument,
    as_json: JsonOption = False,
) -> None:
    """Per layer and in total: shapes, parameters, MACs, FLOPs, bytes and ranges of the weights."""
    from lowbit.formats.opening import load
    from lowbit.graph.cost import cost
    from lowbit.reports.inspection import inspection_json, print_inspection

    loaded = load(model)
    counted = cost(loaded)
    ledger = read_file_ledger(model)
    if as_json:
        print_json(inspection_json(loaded, counted, ledger))
    else:
        print_inspection(loaded, counted, ledger)


def plan(
    model: ModelArgument,
    recipe: RecipeOption,
    per: PerOption = None,
    group_size: GroupOption = None,
    affine: AffineOption = None,
    target: TargetOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """What a recipe will do to each tensor and node, and why, before anything is touched."""
    from lowbit.formats.opening import load
    from lowbit.quantization.plan import plan as make_plan
    from lowbit.quantization.recipes import parse_recipe
    from lowbit.reports.inspection import print_plan

    wanted = parse_recipe(
        recipe, per=per, group_size=group_size, symmetric=None if affine is None else not affine, target=target
    )
    decision = make_plan(load(model), wanted)
    if as_json:
        print_json(decision.to_json())
    else:
        print_plan(decision)
    if strict:
        decision.require_all()


def recipes(as_json: JsonOption = False) -> None:
    """All recipes, with the widths they take."""
    from lowbit.quantization.recipes import RECIPES

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

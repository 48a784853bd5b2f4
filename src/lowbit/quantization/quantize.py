"""Quantize a model: decide, take the steps that the plan names, and keep of them what brings the file closer."""

import gc
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowbit.calibration.batches import as_runs
from lowbit.calibration.reach import measured_reach
from lowbit.data.dataset import Dataset
from lowbit.data.images import Images
from lowbit.data.opening import open_data
from lowbit.errors import DataError, SchemeError
from lowbit.formats.opening import load
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.formats.record import record, recorded
from lowbit.graph.model import Model
from lowbit.processor import single_thread_blas
from lowbit.progress import IF_LONG, SILENT, Progress, shows_progress
from lowbit.quantization.passes.activations import bias_limit, large_biases
from lowbit.quantization.passes.candidate import plain_candidate, plain_graph
from lowbit.quantization.passes.selection import Selection
from lowbit.quantization.passes.validation import fitting_and_judging
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.halves import measured_tensors, with_reach
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.plan_file import followable
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.planning.rules import Rules
from lowbit.quantization.planning.steps import default_steps
from lowbit.quantization.quantized import Quantized


@shows_progress
def quantize(
    model: Model | str | Path,
    recipe: str | Recipe | Plan,
    *,
    rules: Rules = (),
    calibration: Dataset | str | Path | Iterable[Any] | None = None,
    effort: str | None = None,
    steps: Sequence[str] | None = None,
    strict: bool = False,
    progress: Progress = IF_LONG,
) -> Quantized:
    """Quantize a trained model; with calibration images, for what its layers compute rather than for the weights alone.

    Args:
        model: a loaded model or the path of one.
        recipe: a recipe or its name, such as `int8`, `linear4`, `cluster2`; or a plan to follow.
        rules: other recipes for some layers, such as ["depthwise=linear8"]; see `plan`.
        calibration: samples without need of labels; anything `open_data` takes.
        effort: a row of `EFFORTS`: how long to search; None for that of the plan, or "balanced".
        steps: keys of `STEP_NAMES` to try between plain codes and the file, such as ("bias",) or (); None leaves the
            choice to the plan, or to recipe and effort.
        strict: refuse if anything asked for cannot be given.
        progress: told as the work goes on.

    Raises:
        SchemeError: no such recipe, effort or step, a rule that speaks of nothing, a plan that does not fit the model,
            or weights that cannot be encoded.
        DataError: the recipe needs calibration images and there are none.
        ModelError: nothing to quantize, or quantized already.
        DowngradeError: strict, and something cannot be given.

    >>> quantized = lowbit.quantize("model.onnx", "int8", calibration="photos", effort="fast")
    >>> quantized.save("model-int8.onnx").name
    'model-int8.onnx'
    """
    model = load(model)
    with_images = calibration is not None
    if not isinstance(recipe, Plan):
        effort = effort or "balanced"
        decision = plan(model, recipe, rules=rules, effort=effort, steps=steps, with_images=with_images)
    elif rules:
        raise SchemeError("a plan has followed its rules already.", remedy="Give the rules to `plan`.")
    else:
        decision = followable(model, recipe, effort=effort, steps=steps, with_images=with_images)
    if strict:
        decision.require_all()
    if steps and not with_images:
        raise DataError(
            f"the steps {', '.join(steps)} look at what the network computes and must see some images.",
            remedy="Give calibration images: --calibration DIR, or calibration= in Python.",
        )
    data = None if calibration is None else as_runs(model, open_data(calibration, model))
    return follow(model, decision, data, progress=progress)


@single_thread_blas()
def follow(
    model: Model, decision: Plan, data: Dataset | None, *, threads: int = 0, progress: Progress = SILENT
) -> Quantized:
    """Do what a plan says; the files say of what they were made (`record`).

    Args:
        model: the prepared float model that it was made for.
        decision: the plan.
        data: calibration samples, in runs of the model.
        threads: threads of the runtime during calibration; 0 leaves it to the runtime.
        progress: told as the work goes on.

    Raises:
        SchemeError: weights that cannot be encoded.
        DataError: some nodes compute in integers, and there are no samples.
    """
    data = data.keeping() if isinstance(data, Images) else data
    quantized = _followed(model, decision, data, threads, progress)
    used = decision.steps or decision.integer or decision.recipe.arithmetic == "float16"
    entry = record(model, decision.recipe.name, calibration=data if used else None)
    return replace(quantized, graph=recorded(quantized.graph, entry))


def _followed(model: Model, decision: Plan, data: Dataset | None, threads: int, progress: Progress) -> Quantized:
    if decision.integer and data is None:
        raise DataError(
            f"recipe '{decision.title}' turns activations into integers and must see some images first.",
            remedy="Give calibration images: --calibration DIR, or calibration= in Python. A few hundred are plenty.",
        )
    if data is not None and decision.recipe.arithmetic == "float16":
        reach = measured_reach(model, data, measured_tensors(model, decision.nodes), threads=threads, progress=progress)
        decision = replace(decision, nodes=with_reach(model, decision.nodes, reach))
    if data is None or not (decision.steps or decision.integer):
        return Quantized(
            decision, plain_graph(model, decision, progress), notes=(*model.remarks, *_unused(decision, data))
        )
    if not decision.steps:
        plain = plain_candidate(model, decision, data, threads, progress)
        notes = _notes(model, decision, plain.graph)
        return Quantized(decision, plain.graph, calibration=plain.statistics, notes=notes)
    fitting, judging = fitting_and_judging(model, data)
    plain = plain_candidate(model, decision, fitting, threads, progress)
    selection = Selection(model, plain, fitting, judging, threads, every=data)
    for name in decision.steps:
        selection.take(name, progress)
        gc.collect()  # scaled weights that were not kept go with their graph, whose parts point at each other
    chosen = selection.current
    notes = _notes(model, chosen.plan, chosen.graph)
    return Quantized(chosen.plan, chosen.graph, tuple(selection.results), chosen.statistics, notes)


def _notes(model: Model, decision: Plan, graph: QuantizedGraph) -> tuple[str, ...]:
    """What whoever asked should know of the result."""
    crowded = large_biases(graph.biases, bias_limit(decision))
    return (*model.remarks, crowded) if crowded else model.remarks


def _unused(decision: Plan, data: object | None) -> tuple[str, ...]:
    """What is said where calibration images were given and make no difference."""
    if data is None or decision.recipe.arithmetic == "float16":  # which sees in them what may overflow
        return ()
    if not decision.quantized:
        return ("The calibration images were not used: nothing is quantized.",)
    asked = {tensor.recipe for tensor in decision.quantized if tensor.recipe}
    if default_steps([parse_recipe(name) for name in asked], decision.effort):
        return ("The calibration images were not used: there is nothing to learn from them without steps.",)
    what = f"{decision.title} takes no steps at effort {decision.effort}"
    return (f"The calibration images were not used: {what}. Name steps (such as rounding), or a higher effort.",)

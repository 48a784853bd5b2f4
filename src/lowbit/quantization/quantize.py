"""Quantize a model: decide, take the steps that the plan names, and keep of them what brings the file closer."""

import gc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lowbit.calibration.batches import as_runs
from lowbit.data.dataset import Dataset
from lowbit.data.opening import open_data
from lowbit.errors import DataError
from lowbit.formats.opening import load
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.processor import single_thread_blas
from lowbit.progress import SILENT, Progress
from lowbit.quantization.passes.activations import bias_limit, large_biases
from lowbit.quantization.passes.candidate import plain_candidate, plain_graph
from lowbit.quantization.passes.selection import Selection
from lowbit.quantization.passes.validation import fitting_and_judging
from lowbit.quantization.planning.plan import Plan, plan
from lowbit.quantization.planning.recipes import Recipe
from lowbit.quantization.quantized import Quantized


@single_thread_blas()
def quantize(
    model: Model | str | Path,
    recipe: str | Recipe,
    *,
    calibration: Dataset | str | Path | Iterable[Any] | None = None,
    effort: str = "balanced",
    steps: Sequence[str] | None = None,
    strict: bool = False,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Quantized:
    """Quantize a trained model; with calibration images, for what its layers compute rather than for the weights alone.

    Args:
        model: a loaded model or the path of one.
        recipe: a recipe or its name, such as `int8`, `linear4`, `cluster2`.
        calibration: samples without need of labels; anything `open_data` takes.
        effort: a row of `EFFORTS`: how long to search.
        steps: keys of `STEP_NAMES` to try between plain codes and the file, such as ("bias",) or (); None leaves the
            choice to recipe and effort.
        strict: refuse if anything asked for cannot be given.
        threads: threads of the runtime during calibration; 0 leaves it to the runtime.
        progress: told as the work goes on.

    Raises:
        SchemeError: no such recipe, effort or step, or weights that cannot be encoded.
        DataError: the recipe needs calibration images and there are none.
        ModelError: nothing to quantize, or quantized already.
        DowngradeError: strict, and something cannot be given.
    """
    model = load(model)
    decision = plan(model, recipe, effort=effort, steps=steps, with_images=calibration is not None)
    _check(decision, with_images=calibration is not None, steps=steps, strict=strict)
    data = None if calibration is None else as_runs(model, open_data(calibration, model))
    if data is None or not (decision.steps or decision.recipe.integer):
        return Quantized(
            decision, plain_graph(model, decision, progress), notes=(*model.remarks, *_unused(decision, data))
        )
    if not decision.steps:
        plain = plain_candidate(model, decision, data, threads, progress)
        notes = _notes(model, decision, plain.graph)
        return Quantized(decision, plain.graph, calibration=plain.statistics, notes=notes)
    fitting, judging = fitting_and_judging(model, data)
    selection = Selection(
        model, plain_candidate(model, decision, fitting, threads, progress), fitting, judging, threads
    )
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
    if data is None or decision.recipe.weights is None:
        return ()
    what = f"{decision.recipe.name} takes no steps at effort {decision.effort}"
    return (f"The calibration images were not used: {what}. Name steps (such as rounding), or a higher effort.",)


def _check(decision: Plan, *, with_images: bool, steps: Sequence[str] | None, strict: bool) -> None:
    """Refuse what cannot be given, or not without images."""
    if strict:
        decision.require_all()
    if decision.recipe.integer and not with_images:
        raise DataError(
            f"recipe '{decision.recipe.name}' turns activations into integers and must see some images first.",
            remedy="Give calibration images: --calibration DIR, or calibration= in Python. A few hundred are plenty.",
        )
    if steps and not with_images:
        raise DataError(
            f"the steps {', '.join(steps)} look at what the network computes and must see some images.",
            remedy="Give calibration images: --calibration DIR, or calibration= in Python.",
        )

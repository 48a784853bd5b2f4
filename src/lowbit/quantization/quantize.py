"""Quantize a model: decide, then do; the value that comes out can be saved."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lowbit.data.images import Images, open_images
from lowbit.errors import DataError, SchemeError
from lowbit.formats.opening import load
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.processor import single_thread_blas
from lowbit.progress import SILENT, Progress
from lowbit.quantization.passes.steps import Work, encode_plainly, metadata, run_steps
from lowbit.quantization.planning.plan import Plan, plan
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.quantized import Quantized
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.stored_scales import HALF_BITS, narrow_bias


@single_thread_blas()
def quantize(
    model: Model | str | Path,
    recipe: str | Recipe,
    *,
    calibration: Images | str | Path | Iterable[Any] | None = None,
    effort: str = "balanced",
    steps: Sequence[str] | None = None,
    strict: bool = False,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Quantized:
    """Quantize a trained model.

    With calibration images every recipe looks at what its layers really compute: codes are chosen for the error of the
    layer's output, each layer on what the quantized layers before it give, and biases are corrected. Without them only
    the weights themselves are looked at.

    Args:
        model: a loaded model or the path of one.
        recipe: a recipe or its name, such as `int8`, `linear4`, `cluster2`.
        calibration: images without need of labels; anything `open_images` takes.
        effort: a row of `EFFORTS`: how long to search.
        steps: rows of `STEPS`: what is tried between plain encoding and the file, such as ("bias",) or (); None leaves
            the choice to recipe and effort.
        strict: refuse if anything asked for cannot be given.
        threads: threads of the runtime during calibration; 0 leaves it to the runtime.
        progress: told as the work goes on.

    Raises:
        SchemeError: no such recipe, effort or step, or weights that cannot be encoded.
        DataError: the recipe needs calibration images and there are none.
        ModelError: nothing to quantize, or quantized already.
        DowngradeError: strict, and something cannot be given.
    """
    if not isinstance(model, Model):
        model = load(model)
    recipe = parse_recipe(recipe)
    if effort not in EFFORTS:
        raise SchemeError(f"no effort is called '{effort}'.", remedy=f"Choose one of: {', '.join(EFFORTS)}.")
    decision = plan(model, recipe, effort=effort, steps=steps, with_images=calibration is not None)
    if strict:
        decision.require_all()
    if recipe.integer and calibration is None:
        raise DataError(
            f"recipe '{recipe.name}' turns activations into integers and must see some images first.",
            remedy="Give calibration images: --calibration DIR, or calibration= in Python. A few hundred are plenty.",
        )
    if calibration is None and steps:
        raise DataError(
            f"the steps {', '.join(steps)} look at what the network computes and must see some images.",
            remedy="Give calibration images: --calibration DIR, or calibration= in Python.",
        )
    if calibration is None or not (decision.steps or recipe.integer):
        return Quantized(decision, _plain(model, decision, progress))
    images = calibration if isinstance(calibration, Images) else open_images(calibration, model.preprocessing)
    work = Work(model, decision, images, EFFORTS[effort], threads, progress)
    encoded, taken, statistics = run_steps(work)
    return Quantized(decision, encoded, taken, statistics)


def _plain(model: Model, decision: Plan, progress: Progress) -> QuantizedGraph:
    """Every tensor by its scheme alone; biases in half precision where codes are coarser than that."""
    weights = encode_plainly(model, decision, progress)
    floats = {}
    if decision.recipe.weights is not None and decision.recipe.bits <= HALF_BITS and not decision.recipe.integer:
        biases = {layer.bias for layer in layers(model) if layer.weight in weights and layer.bias is not None}
        floats = {name: narrow_bias(model.weights[name]) for name in sorted(biases)}
    return QuantizedGraph(model, weights=weights, float_values=floats, metadata=metadata(decision.recipe))

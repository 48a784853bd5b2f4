"""One model, one calibration set, every recipe: each written as a file, and all files measured side by side."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lowbit.calibration.statistics import Statistics, calibrate
from lowbit.data.images import Images, check_labels, open_images, overlap
from lowbit.errors import DataError
from lowbit.formats.opening import load
from lowbit.graph.model import Model
from lowbit.measurement.measure import RUNS, Candidate, measure
from lowbit.measurement.results import Comparison
from lowbit.progress import SILENT, Progress
from lowbit.quantization.plan import Plan, plan
from lowbit.quantization.quantize import Quantized, quantize
from lowbit.quantization.recipes import STUDY, Recipe, parse_recipe


def compare(
    model: Model | str | Path,
    data: Images | str | Path | Iterable[Any],
    *,
    calibration: Images | str | Path | Iterable[Any] | None = None,
    recipes: Sequence[str | Recipe] = STUDY,
    folder: Path | str,
    engine: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    runs: int = RUNS,
    same_data: bool = False,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Comparison:
    """Quantize a model by every recipe, write every file into `folder`, and measure the files.

    Args:
        model: a loaded model or the path of one.
        data: evaluation images, anything `open_images` takes.
        calibration: calibration images; only needed by recipes that look at activations.
        recipes: recipes or their names; `float` is measured first whether named or not.
        folder: where the files go; created if missing.
        engine: runtime that predicts and is timed.
        threads: threads of the runtime while timing.
        batch: images a run while timing.
        runs: timed runs of each file.
        same_data: insist on evaluating with images that were also used to calibrate.
        strict: refuse if anything asked for cannot be given.
        progress: told as the work goes on.

    Raises:
        LowbitError: bad model, data, recipe or folder; the message says which.
    """
    if not isinstance(model, Model):
        model = load(model)
    chosen = [parse_recipe(recipe) for recipe in recipes]
    chosen = [parse_recipe("float"), *(recipe for recipe in chosen if recipe.weights is not None)]
    plans = [plan(model, recipe) for recipe in chosen]
    if strict:
        for decision in plans:
            decision.require_all()
    images = data if isinstance(data, Images) else open_images(data, model.preprocessing)
    if images.labels is not None and model.classes is not None:
        check_labels(images, model.classes)
    statistics, seen = None, None
    if any(recipe.integer for recipe in chosen):
        seen = calibration_images(model, calibration, images, same_data=same_data)
        statistics = _statistics(model, plans, seen, progress=progress)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = Path(model.source).stem
    candidates = []
    for recipe in chosen:
        quantized = quantize(model, recipe, statistics=statistics, progress=progress)
        path = quantized.save(folder / f"{stem}-{recipe.name}.onnx")
        candidates.append(candidate(quantized, path))
    comparison = measure(candidates, images, engine=engine, threads=threads, batch=batch, runs=runs, progress=progress)
    where = comparison.environment
    if seen is not None:
        where = dataclasses.replace(
            where,
            calibration=seen.name,
            calibration_images=seen.count,
            calibration_sha256=seen.fingerprint(),
        )
    # The float file is measured under its own name, but it was made from the user's.
    named = dataclasses.replace(comparison.model, name=model.source, trained_parameters=model.trained_parameters)
    return dataclasses.replace(comparison, environment=where, model=named)


def candidate(quantized: Quantized, path: Path) -> Candidate:
    """What a report should know of a quantized file besides what can be measured."""
    decision = quantized.plan
    schemes = {layer: tensor.given.name for tensor in decision.quantized if tensor.given for layer in tensor.layers}
    reasons = {layer: tensor.reason for tensor in decision.tensors if tensor.given is None for layer in tensor.layers}
    return Candidate(
        recipe=decision.recipe.name,
        path=path,
        bits=decision.recipe.bits,
        schemes=schemes,
        reasons=reasons,
        notes=decision.downgrades,
    )


def calibration_images(
    model: Model,
    calibration: Images | str | Path | Iterable[Any] | None,
    evaluation: Images,
    *,
    same_data: bool = False,
) -> Images:
    """Open the calibration images and make sure that none of them is evaluated on.

    Raises:
        DataError: there are none, or some are in both sets and `same_data` does not insist.
    """
    if calibration is None:
        raise DataError(
            "recipes that turn activations into integers need calibration images.",
            remedy="Give --calibration DIR with images that are not evaluated on, or choose recipes without int.",
        )
    seen = calibration if isinstance(calibration, Images) else open_images(calibration, model.preprocessing)
    shared = overlap(seen, evaluation)
    if shared and not same_data:
        raise DataError(
            f"{shared} of {seen.count} calibration images are in the evaluation set too, so the result would flatter.",
            where=seen.name,
            remedy="Give other images, or insist with --same-data.",
        )
    return seen


def _statistics(model: Model, plans: Sequence[Plan], images: Images, *, progress: Progress) -> Statistics:
    """One pass serves every recipe."""
    tensors = {tensor for decision in plans for group in decision.scale_groups for tensor in group}
    return calibrate(model, images, tensors=sorted(tensors), progress=progress)

"""One model, one calibration set, every recipe: each written as a file, and all files measured side by side."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lowbit.data.images import Images, check_labels, open_images, overlap
from lowbit.engines import chosen_engines
from lowbit.errors import DataError, ModelError
from lowbit.formats.opening import load
from lowbit.graph.cost import cost
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.measurement.conditions import RUNS, Conditions
from lowbit.measurement.measure import measured
from lowbit.measurement.results import Comparison, Step
from lowbit.measurement.roofline import LITERT, Outlook, measure_peaks, outlook
from lowbit.measurement.rows import Candidate
from lowbit.progress import SILENT, Progress
from lowbit.quantization.plan import plan
from lowbit.quantization.quantize import Quantized, check_form, quantize
from lowbit.quantization.recipes import STUDY, Recipe, parse_recipe


def compare(
    model: Model | str | Path,
    data: Images | str | Path | Iterable[Any],
    *,
    calibration: Images | str | Path | Iterable[Any] | None = None,
    recipes: Sequence[str | Recipe] = STUDY,
    folder: Path | str,
    input: str = "float32",
    input_layout: str = "NHWC",
    engine: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    runs: int = RUNS,
    emulate: str = "",
    control: bool = False,
    effort: str = "balanced",
    same_data: bool = False,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Comparison:
    """Quantize a model by every recipe, write every file into `folder`, and measure the files.

    Args:
        model: a loaded model or the path of one.
        data: evaluation images, anything `open_images` takes.
        calibration: calibration images, without need of labels; recipes that leave activations float can do without,
            but lose more.
        recipes: recipes or their names; `float` is measured first whether named or not.
        folder: where the files go; created if missing.
        input: what the files take, the float one too: "float32", or "uint8" for the bytes of images. So bytes are
            timed from the image to the answer, normalization included.
        input_layout: of image bytes, "NHWC" or "NCHW".
        engine: runtime that predicts and is timed: a name, several with commas, or `auto`; see `measure`.
        threads: threads of the runtime while timing.
        batch: images a run while timing.
        runs: timed runs of each file.
        emulate: "x86" adds the answers of integer files on x86 without VNNI; see `measure`.
        control: also compress the float file with zstd -19 and xz -9; see `measure`.
        effort: how long quantizing may search: fast, balanced or best.
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
    for recipe in chosen:
        # Before anything takes time: what cannot be given is known from the graph alone.
        decision = plan(model, recipe)
        if strict:
            decision.require_all()
    folder, stem = Path(folder), Path(model.source).stem
    check_form(model, chosen[0], folder / f"{stem}.onnx", input=input, input_layout=input_layout)
    images = data if isinstance(data, Images) else open_images(data, model.preprocessing)
    if images.labels is not None and model.classes is not None:
        check_labels(images, model.classes)
    seen = None
    if calibration is not None or any(recipe.integer for recipe in chosen):
        seen = calibration_images(model, calibration, images, same_data=same_data)
    folder.mkdir(parents=True, exist_ok=True)
    # Said before anything is timed, so that the timing can contradict it.
    conditions = Conditions(engine=engine, threads=threads, batch=batch, runs=runs, emulate=emulate, control=control)
    expected = _outlooks(model, chosen, conditions) if runs else {}
    candidates = []
    target = ""
    for recipe in chosen:
        quantized = quantize(model, recipe, calibration=seen, effort=effort, progress=progress)
        path = quantized.save(folder / f"{stem}-{recipe.name}.onnx", input=input, input_layout=input_layout)
        found = candidate(quantized, path)
        if recipe.integer:
            found = dataclasses.replace(found, expected={name: outlook.gain for name, outlook in expected.items()})
        candidates.append(found)
        target = quantized.plan.target or target
    comparison = measured(candidates, images, conditions, progress=progress)
    where = dataclasses.replace(comparison.environment, target=target)
    if seen is not None:
        where = dataclasses.replace(
            where,
            calibration=seen.name,
            calibration_images=seen.count,
            calibration_sha256=seen.fingerprint(),
        )
    # The float file is measured under its own name, but it was made from the user's.
    named = dataclasses.replace(comparison.model, name=model.source, trained_parameters=model.trained_parameters)
    verdicts = tuple(outlook.verdict for outlook in expected.values())
    return dataclasses.replace(comparison, environment=where, model=named, verdicts=verdicts)


def _outlooks(model: Model, recipes: Sequence[Recipe], conditions: Conditions) -> dict[str, Outlook]:
    """What to expect of integers on each engine; nothing where no recipe computes in them or sizes are not known."""
    recipe = next((recipe for recipe in recipes if recipe.integer), None)
    if recipe is None:
        return {}
    # The files that are compared are ONNX.
    names = [name for name in chosen_engines(conditions.engine) if name != LITERT]
    try:
        cost(model, batch=conditions.batch)
    except ModelError:
        return {}
    return {
        name: outlook(
            model, measure_peaks(engine=name, threads=conditions.threads), batch=conditions.batch, recipe=recipe
        )
        for name in names
    }


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
        notes=(*decision.downgrades, *decision.adaptations),
        steps=tuple(
            Step(
                step.name,
                step.kl_before,
                step.kl_after,
                step.seconds,
                "; ".join(filter(None, (step.note, "" if step.kept else "dropped, it did not help enough"))),
            )
            for step in quantized.steps
        ),
        float_weights={layer.node: quantized.model.weights[layer.weight] for layer in layers(quantized.model)},
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

"""One model, one calibration set, every recipe: a file for each engine, and all of them measured side by side."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lowbit.data.images import Images, check_labels, open_images, overlap
from lowbit.engines import AUTO, ENGINES, chosen_engines, engine_version
from lowbit.errors import DataError, DowngradeError, ModelError
from lowbit.formats.file_form import LITERT, FileForm
from lowbit.formats.opening import load
from lowbit.graph.cost import cost
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.measurement.conditions import RUNS, Conditions
from lowbit.measurement.entries import check_emulation
from lowbit.measurement.forms import Place, check_forms, refused_by_all, write_forms
from lowbit.measurement.measure import measured
from lowbit.measurement.results import Comparison, Step
from lowbit.measurement.roofline import Outlook, measure_peaks, outlook
from lowbit.measurement.rows import Candidate
from lowbit.progress import SILENT, Progress
from lowbit.quantization.planning.plan import plan
from lowbit.quantization.planning.recipes import STUDY, Recipe, parse_recipe
from lowbit.quantization.quantize import quantize
from lowbit.quantization.quantized import Quantized


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
    """Quantize a model by every recipe, write a file for each engine into `folder`, and measure the files.

    Engines share a file where one form serves both; integers have one for each of ONNX Runtime (`.onnx`), OpenVINO
    (`-openvino.onnx`) and LiteRT (`.tflite`). What LiteRT has no form for is left out and named in `notes`.

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
        engine: runtime that predicts and is timed: a name, several with commas, or `auto` for all that are installed.
            Rows come file by file, engines in this order; the first float row is what the others are compared with.
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
        LowbitError: bad model, data, recipe, engine or folder, or nothing but the float file could be written; the
            message says which.
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
    engines = chosen_engines(engine)
    for name in engines:
        engine_version(name)  # which says how to install what is missing
    check_emulation(emulate, engines)
    place = Place(Path(folder), Path(model.source).stem, FileForm(input=input, layout=input_layout))
    check_forms(model, chosen[0], engines, place)
    images = data if isinstance(data, Images) else open_images(data, model.preprocessing)
    if images.labels is not None and model.classes is not None:
        check_labels(images, model.classes)
    seen = None
    if calibration is not None or any(recipe.integer for recipe in chosen):
        seen = calibration_images(model, calibration, images, same_data=same_data)
    place.folder.mkdir(parents=True, exist_ok=True)
    conditions = Conditions(engine=engine, threads=threads, batch=batch, runs=runs, emulate=emulate, control=control)
    expected: dict[str, Outlook] = {}
    candidates: list[Candidate] = []
    notes: list[str] = []
    target = ""
    for recipe in chosen:
        found, refused, target_of_recipe = _made(
            model, recipe, engines, place, calibration=seen, effort=effort, progress=progress
        )
        if not candidates and not found:
            raise next(iter(refused.values()))
        notes += _passed_over(refused, model, strict=strict and engine.strip() != AUTO)
        if not candidates:
            if refused:
                # It is no recipe that LiteRT has no form for, but the network itself, or the layout of bytes.
                engines = tuple(name for name in engines if ENGINES[name].float_file.to != LITERT)
            # Said before anything is timed, so that the timing can contradict it.
            expected = _outlooks(model, chosen, engines, conditions) if runs else {}
        elif not found and recipe is chosen[-1] and candidates[-1].recipe == chosen[0].name:
            raise next(iter(refused.values()))
        if recipe.integer:
            gains = {name: outlook.gain for name, outlook in expected.items()}
            found = [dataclasses.replace(file, expected=gains) for file in found]
        candidates += found
        target = target_of_recipe or target
    comparison = measured(candidates, images, conditions, model=model, progress=progress)
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
    timed = {row.engine for row in comparison.rows if row.expected_ratio is not None}
    verdicts = tuple(outlook.verdict for name, outlook in expected.items() if name in timed)
    return dataclasses.replace(
        comparison, environment=where, model=named, verdicts=verdicts, notes=(*notes, *comparison.notes)
    )


def _made(
    model: Model,
    recipe: Recipe,
    engines: Sequence[str],
    place: Place,
    *,
    calibration: Images | None,
    effort: str,
    progress: Progress,
) -> tuple[list[Candidate], Mapping[str, ModelError], str]:
    """The files of one recipe; by the name of each that could not be written, why; and the target of its integers."""
    refused = refused_by_all(model, recipe, engines, place)
    if refused:
        return [], refused, ""
    quantized = quantize(model, recipe, calibration=calibration, effort=effort, progress=progress)
    written, refused = write_forms(quantized, engines, place)
    found: list[Candidate] = []
    for path, form in written:
        # Steps are the recipe's, whoever runs it: one file tells them.
        known = dataclasses.replace(found[0], path=path, steps=()) if found else candidate(quantized, path)
        found.append(dataclasses.replace(known, engines=form.engines))
    return found, refused, quantized.plan.target


def _passed_over(refused: Mapping[str, ModelError], model: Model, *, strict: bool) -> list[str]:
    """What is said of files that could not be written.

    Raises:
        DowngradeError: strict, and there is one.
    """
    said = []
    for name, error in refused.items():
        node = error.where.removeprefix(model.source).removeprefix(": ")
        said.append(f"{name} was not written: {f'{node}: ' if node else ''}{error.what}")
    if said and strict:
        raise DowngradeError(said[0], remedy="Name other engines or recipes, or leave --strict out.")
    return said


def _outlooks(
    model: Model, recipes: Sequence[Recipe], engines: Sequence[str], conditions: Conditions
) -> dict[str, Outlook]:
    """What to expect of integers on each engine; nothing where no recipe computes in them or sizes are not known."""
    recipe = next((recipe for recipe in recipes if recipe.integer), None)
    if recipe is None:
        return {}
    try:
        cost(model, batch=conditions.batch)
    except ModelError:
        return {}
    return {
        name: outlook(
            model, measure_peaks(engine=name, threads=conditions.threads), batch=conditions.batch, recipe=recipe
        )
        for name in engines
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

"""One model, one calibration set, every recipe: a file for each engine, and all of them measured side by side."""

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowbit.calibration.batches import as_runs
from lowbit.data.dataset import Dataset, overlap
from lowbit.data.opening import open_data
from lowbit.engines import AUTO, ENGINES, chosen_engines, engine_version
from lowbit.errors import DataError, DowngradeError, ModelError, SchemeError
from lowbit.formats.file_form import LITERT
from lowbit.formats.opening import load
from lowbit.graph.cost import cost
from lowbit.graph.model import Model
from lowbit.graph.weights import weights_by_name
from lowbit.measurement.conditions import CompareOptions, Conditions
from lowbit.measurement.details import Step
from lowbit.measurement.engine_files import Destination, check_files, refused_by_all, write_files
from lowbit.measurement.entries import check_emulation
from lowbit.measurement.forecast import forecast
from lowbit.measurement.kept import Kept
from lowbit.measurement.measure import measure
from lowbit.measurement.reference import check_classes
from lowbit.measurement.results import Comparison, Environment
from lowbit.measurement.roofline import Outlook
from lowbit.measurement.rows import Candidate
from lowbit.measurement.tasks.table import check_task
from lowbit.progress import IF_LONG, Progress, shows_progress
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import STUDY, Recipe, parse_recipe
from lowbit.quantization.quantize import quantize
from lowbit.quantization.quantized import Quantized


@shows_progress
def compare(
    model: Model | str | Path,
    data: Dataset | str | Path | Iterable[Any],
    *,
    calibration: Dataset | str | Path | Iterable[Any] | None = None,
    recipes: Sequence[str | Recipe | Plan] = STUDY,
    folder: Path | str | None = None,
    options: CompareOptions = CompareOptions(),
    conditions: Conditions = Conditions(),
    progress: Progress = IF_LONG,
) -> Comparison:
    """Quantize a model by every recipe, write a file for each engine into a folder, and measure the files.

    Engines share a file where they can; integers have one each for ONNX Runtime (`.onnx`), OpenVINO (`-openvino.onnx`)
    and LiteRT (`.tflite`). What LiteRT's format cannot hold is left out and named in `notes`.

    Args:
        model: a loaded model or its path.
        data: evaluation samples, anything `open_data` takes.
        calibration: calibration samples; only integer recipes cannot do without them.
        recipes: recipes, their names, or plans; `float` is always measured first.
        folder: where the files go; created if missing. None keeps no files.
        options: how the files are made.
        conditions: how they are measured; engines run each file in the order named.
        progress: told as the work goes on.

    Raises:
        LowbitError: the message says what is wrong; also if nothing but the float file could be written.

    >>> conditions = lowbit.Conditions(runs=0, with_memory=False)
    >>> comparison = lowbit.compare("model.onnx", "test", recipes=["linear8", "cluster2"], conditions=conditions)
    >>> comparison.save_report("report.html").name
    'report.html'
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="lowbit-") as passing:
            return compare(
                model, data, calibration=calibration, recipes=recipes, folder=passing, options=options,
                conditions=conditions, progress=progress,
            )  # fmt: skip
    model = load(model)
    chosen = _planned(model, recipes, options)
    engines = _checked(conditions)
    destination = Destination(model, Path(folder), options.form)
    check_files(chosen[0], engines, destination)
    evaluation = as_runs(model, open_data(data, model))
    check_classes(model, evaluation, conditions.task)
    seen = None
    if calibration is not None or any(decision.integer for decision in chosen):
        seen = calibration_data(model, calibration, evaluation, same_data=options.same_data)
    destination.folder.mkdir(parents=True, exist_ok=True)
    strict = options.strict and conditions.engine.strip() != AUTO
    written = _write_all(chosen, engines, destination, Making(seen, strict, progress, options.kept))
    # Before anything is timed, so that the timing can contradict it.
    outlooks = _outlooks(model, chosen, written.engines, conditions) if conditions.runs else {}
    candidates = _with_gains(written.candidates, chosen, outlooks)
    comparison = measure(candidates, evaluation, conditions=conditions, model=model, progress=progress)
    timed = {row.engine for row in comparison.rows if row.expected_ratio is not None}
    verdicts = tuple(outlook.verdict for name, outlook in outlooks.items() if name in timed)
    # The float file is measured under its own name, but it was made from the user's.
    named = dataclasses.replace(comparison.model, name=model.source, trained_parameters=model.trained_parameters)
    origin = _with_origin(comparison.environment, model, written.target, seen)
    comparison = dataclasses.replace(comparison, environment=origin, model=named, verdicts=verdicts)
    return dataclasses.replace(comparison, notes=(*written.notes, *comparison.notes))


def _checked(conditions: Conditions) -> tuple[str, ...]:
    """The engines that are asked for: all are installed, and the task is one."""
    check_task(conditions.task)
    engines = chosen_engines(conditions.engine)
    for name in engines:
        engine_version(name)  # which says how to install what is missing
    check_emulation(conditions.emulate, engines)
    return engines


@dataclass(frozen=True)
class Making:
    """How the files of all recipes are made.

    Attributes:
        calibration: calibration samples, if there are any.
        strict: refuse if a file cannot be written.
        progress: told as the work goes on.
        kept: a folder for finished recipes of an earlier run, and of this one.
    """

    calibration: Dataset | None
    strict: bool
    progress: Progress
    kept: Path | None


@dataclass(frozen=True)
class Written:
    """The files of all recipes.

    Attributes:
        candidates: recipe by recipe, engines in their order.
        engines: those that can run the network.
        notes: what could not be written.
        target: processor that the integer files are made for; empty if there are none.
    """

    candidates: Sequence[Candidate]
    engines: Sequence[str]
    notes: Sequence[str]
    target: str


def _planned(model: Model, recipes: Sequence[str | Recipe | Plan], options: CompareOptions) -> list[Plan]:
    """The plans, float first; what a recipe cannot give is known from the graph alone, before anything takes time."""
    chosen = [plan(model, "float", effort=options.effort)]
    for recipe in recipes:
        if isinstance(recipe, Plan):
            chosen.append(recipe)
        elif parse_recipe(recipe).weights is not None:
            chosen.append(plan(model, recipe, rules=options.rules, effort=options.effort))
    names = [decision.recipe.name for decision in chosen]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SchemeError(
            f"two files would be called '{twice}'.",
            remedy="Name each recipe once; give the recipes of plans names of their own.",
        )
    if options.strict:
        for decision in chosen:
            decision.require_all()
    return chosen


def _write_all(plans: Sequence[Plan], engines: Sequence[str], destination: Destination, making: Making) -> Written:
    """Quantize by every recipe and write the files.

    Raises:
        ModelError: no engine takes the float file, or any other.
        DowngradeError: strict, and a file could not be written.
    """
    candidates: list[Candidate] = []
    notes: list[str] = []
    target = ""
    for decision in plans:
        files, refused, target_of_recipe = _write(decision, engines, destination, making)
        if not candidates and not files:
            raise next(iter(refused.values()))
        notes += _left_out(refused, destination.model, strict=making.strict)
        if decision is plans[0] and refused:
            # LiteRT's format lacks an operator of the network itself, or the layout of bytes: no recipe will help.
            engines = [name for name in engines if ENGINES[name].float_file.to != LITERT]
        if not files and decision is plans[-1] and candidates[-1].recipe == plans[0].recipe.name:
            raise next(iter(refused.values()))
        candidates += files
        target = target_of_recipe or target
    return Written(candidates, engines, notes, target)


def _write(
    decision: Plan, engines: Sequence[str], destination: Destination, making: Making
) -> tuple[list[Candidate], Mapping[str, ModelError], str]:
    """The files of one recipe; by the name of each that could not be written, why; and the target of its integers."""
    refused = refused_by_all(decision, engines, destination)
    if refused:
        return [], refused, ""
    kept = None if making.kept is None else Kept(making.kept, destination, making.calibration)
    if kept is not None and (finished := kept.take(decision, engines)) is not None:
        making.progress.note(f"{decision.title} was finished by an earlier run.")
        return finished
    quantized = quantize(destination.model, decision, calibration=making.calibration, progress=making.progress)
    written, refused = write_files(quantized, engines, destination)
    candidates: list[Candidate] = []
    for path, file in written:
        # Steps are the recipe's, whoever runs it: they are told with its first file.
        known = dataclasses.replace(candidates[0], path=path, steps=()) if candidates else candidate_of(quantized, path)
        candidates.append(dataclasses.replace(known, engines=file.engines))
    if kept is not None:
        kept.keep(decision, engines, (candidates, refused, quantized.plan.target))
    return candidates, refused, quantized.plan.target


def _left_out(refused: Mapping[str, ModelError], model: Model, *, strict: bool) -> list[str]:
    """A sentence for each file that could not be written.

    Raises:
        DowngradeError: strict, and there is one.
    """
    notes = []
    for name, error in refused.items():
        node = error.where.removeprefix(model.source).removeprefix(": ")
        notes.append(f"{name} was not written: {f'{node}: ' if node else ''}{error.what}")
    if notes and strict:
        raise DowngradeError(notes[0], remedy="Name other engines or recipes, or leave --strict out.")
    return notes


def _outlooks(
    model: Model, plans: Sequence[Plan], engines: Sequence[str], conditions: Conditions
) -> dict[str, Outlook]:
    """What to expect of integers on each engine; nothing where no recipe computes in them or sizes are not known."""
    decision = next((decision for decision in plans if decision.has_cpu_kernels), None)
    if decision is None:
        return {}
    try:
        cost(model, batch=conditions.batch)
    except ModelError:
        return {}
    return {
        name: forecast(model, decision, engine=name, threads=conditions.threads, batch=conditions.batch)
        for name in engines
    }


def _with_gains(
    candidates: Sequence[Candidate], plans: Sequence[Plan], outlooks: Mapping[str, Outlook]
) -> list[Candidate]:
    """The candidates, those that compute in integers as the first does with the gain expected on each engine."""
    gains = {name: outlook.gain for name, outlook in outlooks.items()}
    first = next((decision.nodes for decision in plans if decision.has_cpu_kernels), ())
    integers = {decision.recipe.name for decision in plans if decision.has_cpu_kernels and decision.nodes == first}
    return [dataclasses.replace(file, expected=gains) if file.recipe in integers else file for file in candidates]


def _with_origin(environment: Environment, model: Model, target: str, calibration: Dataset | None) -> Environment:
    environment = dataclasses.replace(environment, target=target, graph_sha256=model.sha256)
    if calibration is None:
        return environment
    return dataclasses.replace(
        environment,
        calibration=calibration.name,
        calibration_images=calibration.count,
        calibration_sha256=calibration.fingerprint(),
    )


def candidate_of(quantized: Quantized, path: Path) -> Candidate:
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
        notes=(*_by_rules(decision), *decision.downgrades, *decision.adaptations),
        steps=tuple(
            Step(
                step.name,
                step.before,
                step.after,
                step.fitted,
                step.measure,
                step.seconds,
                "; ".join(filter(None, (step.note, "" if step.kept else "dropped: it did not help enough"))),
            )
            for step in quantized.steps
        ),
        float_weights=weights_by_name(quantized.model),
    )


def _by_rules(decision: Plan) -> tuple[str, ...]:
    return (f"quantized by rules: {', '.join(decision.rules)}.",) if decision.rules else ()


def calibration_data(
    model: Model,
    calibration: Dataset | str | Path | Iterable[Any] | None,
    evaluation: Dataset,
    *,
    same_data: bool = False,
) -> Dataset:
    """Open the calibration samples and make sure that none of them is evaluated on.

    Raises:
        DataError: there are none, or some are in both sets and `same_data` is not set.
    """
    if calibration is None:
        raise DataError(
            "recipes that compute in integers need calibration images.",
            remedy="Give --calibration DIR with images that are not evaluated on, or leave the int recipes out.",
        )
    data = as_runs(model, open_data(calibration, model))
    shared = overlap(data, evaluation)
    if shared and not same_data:
        raise DataError(
            f"{shared} of {data.count} calibration images are evaluation images too, so the results would be too good.",
            where=data.name,
            remedy="Use other images, or accept this with --same-data.",
        )
    return data

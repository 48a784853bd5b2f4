"""Choose for me: the smallest or fastest file of a model within a drop, or the closest one within a size."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lowbit.calibration.batches import as_runs
from lowbit.data.dataset import Dataset, overlap
from lowbit.data.opening import open_data
from lowbit.errors import DataError
from lowbit.formats.opening import load
from lowbit.graph.model import Model
from lowbit.measurement.exam import Exam
from lowbit.measurement.peaks import measure_peaks
from lowbit.processor import single_thread_blas
from lowbit.progress import IF_LONG, Progress, shows_progress
from lowbit.quantization.planning.recipes import RECIPES, Recipe, parse_recipe
from lowbit.quantization.solving.effort import effort_called
from lowbit.searching.candidates import Bench
from lowbit.searching.choices import INTEGER, WEIGHT_ONLY
from lowbit.searching.held import held
from lowbit.searching.judge import Division, Judge, divided
from lowbit.searching.limits import SearchLimits, SearchSettings
from lowbit.searching.marks import MEASURE, drop_measure
from lowbit.searching.result import SearchResult
from lowbit.searching.rounds import Rounds
from lowbit.searching.speed import layer_times
from lowbit.searching.store import Store
from lowbit.searching.workers import workers

CALIBRATION_SHARE, MOST_CALIBRATION = 4, 256  # of evaluation samples, where there are no others to calibrate on
FEWEST = 8


@shows_progress
@single_thread_blas()
def search(
    model: Model | str | Path,
    data: Dataset | str | Path | Iterable[Any],
    limits: SearchLimits,
    *,
    calibration: Dataset | str | Path | Iterable[Any] | None = None,
    settings: SearchSettings = SearchSettings(),
    folder: Path | str | None = None,
    progress: Progress = IF_LONG,
) -> SearchResult:
    """Search for the best file of a model within limits.

    There is always an answer: stopped early (Ctrl-C) or out of time, the best so far; where limits cannot be met, the
    nearest, and what would be needed.

    Args:
        model: a float model or its path.
        data: evaluation samples, anything `open_data` takes; with labels if accuracy is meant.
        limits: what is to be kept, and what is to be least.
        calibration: samples that codes are chosen on; None sets a part of `data` apart for it.
        settings: how to search.
        folder: where every finished candidate is kept with its plan; None keeps none.
        progress: told as the work goes on.

    Raises:
        SchemeError: no such recipe, effort or workers.
        DataError: too few samples, or some are in both sets.
        ModelError: nothing to quantize, or quantized already.
        OutputError: the folder is not writable.

    >>> limits = lowbit.SearchLimits(max_drop=60, seconds=0.2)
    >>> settings = lowbit.SearchSettings(recipes=("linear8",), effort="fast")
    >>> result = lowbit.search("model.onnx", "test", limits, calibration="photos", settings=settings)
    >>> result.save("searched.onnx").name
    'searched.onnx'
    """
    started = time.monotonic()
    effort_called(settings.effort)
    model = load(model)
    recipes = allowed_recipes(limits, settings)
    evaluation, images, notes = _samples(model, data, calibration, settings)
    division = divided(evaluation, limits, seed=settings.seed)
    sets = [division.choosing] + ([] if division.certifying is None else [division.certifying])
    exams = tuple(Exam.of(model, each) for each in sets)
    bench = Bench(model, images, exams, settings.archive, settings.short_names, settings.threads)
    circumstances = "".join(each.fingerprint() for each in (images, *sets))
    circumstances += f"{MEASURE}{settings.archive}{settings.short_names}{settings.threads}"
    ending = ".lowbit" if settings.archive else ".onnx"
    store = Store(None if folder is None else Path(folder), model, circumstances, resume=settings.resume, ending=ending)
    times = layer_times(model, measure_peaks(engine=settings.engine)) if limits.timed else None
    judge = Judge(limits, division.certifying is not None)
    interrupted = False
    with workers(bench, settings.workers, progress) as made_by:
        rounds = Rounds(
            bench, limits, settings, store, made_by, judge, progress, times, started=started, recipes=recipes
        )
        rounds.notes += notes
        try:
            rounds.run()
        except KeyboardInterrupt:
            if not rounds.candidates:
                raise
            interrupted = True
    return _result(rounds, division, interrupted=interrupted)


def allowed_recipes(limits: SearchLimits, settings: SearchSettings) -> dict[str, Recipe]:
    """The recipes that layers may get: those asked for, or all that the limits have a use for.

    Integers cost accuracy and save nothing where only bytes count: they are tried where time matters.

    Raises:
        SchemeError: no such recipe or family.
    """
    names: list[str] = []
    for asked in settings.recipes or (*WEIGHT_ONLY, *(INTEGER if limits.timed else ())):
        if asked in RECIPES and asked != "float":
            widths, make, _ = RECIPES[asked]
            names += [make(bits).name for bits in widths]
        else:
            names.append(parse_recipe(asked).name)
    return {name: parse_recipe(name) for name in dict.fromkeys(names)}


def _samples(
    model: Model, data: Dataset | str | Path | Iterable[Any], calibration: object, settings: SearchSettings
) -> tuple[Dataset, Dataset, list[str]]:
    """Evaluation samples, calibration samples, and what is to be said of them."""
    evaluation = held(as_runs(model, open_data(data, model)))
    if evaluation.count < FEWEST:
        raise DataError(f"{evaluation.count} samples say nothing.", remedy=f"Give at least {FEWEST}, better hundreds.")
    if calibration is not None:
        images = held(as_runs(model, open_data(calibration, model)))
        if shared := overlap(evaluation, images):
            raise DataError(
                f"{shared} of the {evaluation.count} samples of data are calibration samples too.",
                where=evaluation.name,
                remedy="Keep them apart: what was fitted to a sample cannot be judged on it.",
            )
        return evaluation, images, []
    count = min(MOST_CALIBRATION, max(1, evaluation.count // CALIBRATION_SHARE))
    evaluation, images = evaluation.apart(count, seed=settings.seed)
    return (
        evaluation,
        images,
        [f"{count} of the samples are set apart to calibrate on; give --calibration to keep all."],
    )


def _result(rounds: Rounds, division: Division, *, interrupted: bool) -> SearchResult:
    """What the rounds have found."""
    judge, limits = rounds.judge, rounds.limits
    best, certificate = judge.verdict(rounds.candidates)
    met = judge.fits(best) and judge.keeps(best)
    notes = list(rounds.notes)
    if not met:
        notes.append(_needed(rounds))
    paths = {each.name: path for each in rounds.candidates if (path := rounds.store.path(each.asked)) is not None}
    return SearchResult(
        best,
        met,
        certificate,
        tuple(rounds.candidates),
        limits,
        drop_measure(rounds.bench.exams[0]),
        division.sentence if limits.max_drop is not None else "",
        time.monotonic() - rounds.started,
        interrupted,
        tuple(notes),
        paths,
    )


def _needed(rounds: Rounds) -> str:
    """What it would take to keep the limits: the least that keeps the drop, and the drop of what is small enough."""
    judge, limits, measure = rounds.judge, rounds.limits, drop_measure(rounds.bench.exams[0])
    parts = ["No file keeps all limits."]
    accepted = [each for each in rounds.candidates if judge.keeps(each)]
    fitting = [each for each in rounds.candidates if judge.fits(each)]
    if accepted and limits.max_drop is not None:
        least = min(accepted, key=lambda each: each.bytes)
        times = [each.latency_ms for each in accepted if each.latency_ms is not None]
        fastest = f", the fastest {min(times):.2f} ms" if times else ""
        parts.append(f"The smallest within {limits.max_drop:g} {measure} takes {least.bytes:,} bytes{fastest}.")
    if fitting:
        closest = min(fitting, key=lambda each: each.marks.distance)
        parts.append(f"Of those that are small and fast enough the closest loses {closest.marks.drop:.2f} {measure}.")
    else:
        smallest = min(rounds.candidates, key=lambda each: each.bytes)
        parts.append(f"The smallest that was made takes {smallest.bytes:,} bytes.")
    return " ".join(parts)

"""Measure model files: everything in a row comes from the file on disk, re-opened."""

import dataclasses
import datetime
import shlex
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowbit.calibration.batches import as_runs, samples_per_run
from lowbit.data.dataset import Dataset
from lowbit.data.images import Images
from lowbit.data.opening import open_data
from lowbit.engines import engine_version
from lowbit.errors import DataError, EngineError
from lowbit.files import sha256_file
from lowbit.formats.opening import check_memory, load
from lowbit.graph.memory import samples_that_fit
from lowbit.graph.model import Model
from lowbit.measurement.accuracy import Score
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.details import Example
from lowbit.measurement.engine_gaps import gaps_between_engines
from lowbit.measurement.entries import Entry, entries, label
from lowbit.measurement.environment import environment
from lowbit.measurement.examples import examples
from lowbit.measurement.inputs import as_taken, first_batch
from lowbit.measurement.judging import case_of, judged
from lowbit.measurement.layer_times import PROFILER, TURNS, LayerTimes, layer_times
from lowbit.measurement.measurable import Measurable, on_disk
from lowbit.measurement.memory import Memory, memory
from lowbit.measurement.network import network
from lowbit.measurement.prediction import Prediction, Runs, predict
from lowbit.measurement.reference import check_classes, described, image_size, layer_costs
from lowbit.measurement.results import CLASSIFICATION, Comparison, Environment
from lowbit.measurement.rows import Candidate, Measured, contents, expected_ratio, row, with_fastest
from lowbit.measurement.sizes import NO_CONTROL, with_sizes
from lowbit.measurement.speed import WARMUP, Latency, latency, load_average
from lowbit.measurement.tasks import Task, chosen_task
from lowbit.measurement.tasks.table import Callback, check_task
from lowbit.measurement.verdicts import Judgement
from lowbit.progress import IF_LONG, Progress, shows_progress


@shows_progress
def measure(
    files: Measurable | Sequence[Measurable],
    data: Dataset | str | Path | Iterable[Any],
    *,
    conditions: Conditions = Conditions(),
    runs: int | None = None,
    task: str | Task | Callback | None = None,
    model: Model | str | Path | None = None,
    progress: Progress = IF_LONG,
) -> Comparison:
    """Measure files on the same samples; the first is the reference that the others are compared with.

    Args:
        files: one or several of one model, the float one first: ONNX, archive or LiteRT files, models, or what
            `quantize` gives, which is written to a temporary file.
        data: evaluation samples, anything `open_data` takes; without labels the distance from the first file takes the
            place of a metric.
        conditions: how to measure.
        runs: timed runs per file, for conditions that are the default otherwise; 0 skips latency.
        task: what files are judged by, likewise.
        model: the float model, if it is already loaded; else it is read from the first file.
        progress: told as the work goes on.

    Raises:
        ModelError, DataError, EngineError: a file, the data or the runtime is at fault; the message says which.

    >>> path = lowbit.quantize("model.onnx", "linear4").save("model-linear4.onnx")
    >>> comparison = lowbit.measure(["model.onnx", path], "test", runs=0)
    >>> comparison
    <Comparison of 2 rows on 10 samples: model, model-linear4>
    """
    conditions = conditions if runs is None else dataclasses.replace(conditions, runs=runs)
    conditions = conditions if task is None else dataclasses.replace(conditions, task=task)
    check_task(conditions.task)
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        first, candidates, paths = on_disk(files, Path(folder), conditions.engine)
        model = load(model or first or paths[0])
        data, per_run = _runs(model, open_data(data, model), conditions)
        conditions = dataclasses.replace(conditions, batch=per_run or conditions.batch)
        made_for = [candidate.engines for candidate in candidates]
        for path, own in zip(paths[1:], made_for[1:], strict=True):
            if not own:
                check_memory(path, model)
        chosen, notes = entries(paths, data, conditions, made_for=made_for, progress=progress)
        kept = sorted({entry.file for entry in chosen})
        if not kept or candidates[kept[0]].recipe != candidates[0].recipe:
            raise EngineError("no installed engine runs the first file.", where=str(paths[0]), remedy=" ".join(notes))
        rows_of = [dataclasses.replace(entry, file=kept.index(entry.file)) for entry in chosen]
        together = min(Runs.size, samples_that_fit(model.ir))
        subject = Subject(
            [candidates[file] for file in kept], [paths[file] for file in kept], rows_of, data, per_run, together
        )
        comparison = _measured(subject, conditions, model, progress)
        rows = with_sizes(
            comparison.rows,
            [entry.file for entry in subject.entries],
            [candidate.path for candidate in subject.candidates],
            control=conditions.control,
            progress=progress,
        )
        if conditions.control and rows[0].zstd_bytes is None:
            notes = (*notes, NO_CONTROL)
        return dataclasses.replace(comparison, rows=rows, notes=(*notes, *gaps_between_engines(rows)))


def _runs(model: Model, data: Dataset, conditions: Conditions) -> tuple[Dataset, int | None]:
    """The data as the model takes it, and how many samples go into a run if the model decides that.

    Raises:
        DataError: data for another model, or a batch size other than the one that is fixed.
    """
    data = as_runs(model, data)
    per_run = samples_per_run(model, data)
    if per_run is not None and conditions.batch not in (1, per_run):
        raise DataError(
            f"the model takes {per_run} sample{'s' if per_run > 1 else ''} a run, not batches of {conditions.batch}.",
            where=model.source,
            remedy="Leave --batch out, or export the model with an open batch dimension.",
        )
    return data, per_run


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        candidates: the files as the user named them, the reference first.
        paths: the ONNX or LiteRT file of each.
        entries: the rows: which file on which engine.
        data: evaluation samples.
        per_run: how many of them go into a run, where the model decides that.
        together: how many do where it does not.
    """

    candidates: Sequence[Candidate]
    paths: Sequence[Path]
    entries: Sequence[Entry]
    data: Dataset
    per_run: int | None
    together: int

    @property
    def labels(self) -> list[str]:
        """What each row is called."""
        several = len({entry.engine for entry in self.entries}) > 1
        return [label(self.candidates[entry.file].recipe, entry, several=several) for entry in self.entries]


def _measured(subject: Subject, conditions: Conditions, model: Model, progress: Progress) -> Comparison:
    candidates, runs, labels = subject.candidates, subject.entries, subject.labels
    check_classes(model, subject.data, conditions.task)
    costs, summary = described(model, subject.data)
    task, scores, shown = _judged(subject, conditions, image_size(model), progress)
    times, memories, by_layer = _costs(subject, conditions, model, progress)
    content = contents(candidates, subject.paths)
    rows = []
    for index, entry in enumerate(runs):
        measured = Measured(
            candidate=candidates[entry.file],
            entry=entry,
            label=labels[index],
            content=content[entry.file],
            first_row=entry.file not in (before.file for before in runs[:index]),
            score=scores[index],
            time=times.get(str(index)),
            memory=memories.get(str(index), Memory(None, None)),
            layer_times=by_layer.get(str(index)),
            examples=shown[index],
        )
        expected = expected_ratio(candidates, entry, runs, times)
        rows.append(dataclasses.replace(row(measured, first=content[0], costs=costs), expected_ratio=expected))
    where = _environment(subject, conditions, times["0"].cpu_share if times else None)
    measured_metrics = tuple(metric for metric in task.metrics if any(metric.name in row.scores for row in rows))
    return Comparison(
        with_fastest(rows, candidates, runs),
        where,
        summary,
        layer_costs(costs),
        task=task.name,
        metrics=measured_metrics,
        network=network(model),
    )


def _judged(
    subject: Subject, conditions: Conditions, size: tuple[int, int] | None, progress: Progress
) -> tuple[Task, list[Score], tuple[tuple[Example, ...], ...]]:
    """The task, and for each row what it comes to and the images that it sees differently than float.

    Outputs can be large: besides the float model's only those of one file are there at a time, and of classifiers the
    scores of all.
    """
    runs = Runs(subject.per_run or subject.together, exactly=subject.per_run is not None)
    scores: list[Score] = []
    predictions: list[Prediction] = []
    reference, task, judgement = None, None, None
    for entry, name in zip(subject.entries, subject.labels, strict=True):
        answers = predict(
            entry.model, subject.data, engine=entry.engine, runs=runs, progress=progress, what=f"predicting: {name}"
        )
        if reference is None or task is None or judgement is None:
            reference = answers
            task = chosen_task(conditions.task, case_of(answers, answers, size))
            judgement = Judgement(task, reference, size)
        scored = judged(answers, task, reference=reference, size=size)
        verdict = judgement.verdict(answers, scored, (scores or [scored])[0].scores)
        scores.append(dataclasses.replace(scored, verdict=verdict))
        if task.name == CLASSIFICATION:
            predictions.append(answers.class_scores())
    assert task is not None
    shown = _examples(predictions, subject.data) if predictions else tuple(() for _ in scores)
    return task, scores, shown


def _costs(
    subject: Subject, conditions: Conditions, model: Model, progress: Progress
) -> tuple[dict[str, Latency], dict[str, Memory], dict[str, LayerTimes]]:
    """By the index of each row that is not emulated: its latency, memory and times of layers, where they are known."""
    real = {str(index): entry for index, entry in enumerate(subject.entries) if not entry.emulated}
    inputs = {
        index: first_batch(as_taken(subject.data, entry.model), conditions.batch) for index, entry in real.items()
    }
    engines = {index: entry.engine for index, entry in real.items()}
    models = {index: entry.model for index, entry in real.items()}
    times = latency(models, inputs, conditions, engines=engines, progress=progress) if conditions.runs else {}
    # A profile takes more runs than a quick look is worth.
    wanted = conditions.runs >= TURNS
    profiled = {index: file for index, file in models.items() if engines[index] == PROFILER and wanted}
    by_layer = layer_times(profiled, inputs, model, threads=conditions.threads, progress=progress) if profiled else {}
    if not conditions.with_memory:
        return times, {}, by_layer
    memories = {
        index: entry.memory or memory(entry.model, inputs[index], engine=entry.engine, threads=conditions.threads)
        for index, entry in progress.track(real.items(), "measuring memory", total=len(real))
    }
    return times, memories, by_layer


def _environment(subject: Subject, conditions: Conditions, cpu_share: float | None) -> Environment:
    """The machine, and everything about this run that a reader needs to repeat it."""
    engines = dict.fromkeys(entry.engine for entry in subject.entries if not entry.emulated)
    return dataclasses.replace(
        environment(),
        engine=", ".join(f"{name} {engine_version(name)}" for name in engines),
        threads=conditions.threads,
        batch=conditions.batch,
        runs=conditions.runs,
        warmup=WARMUP,
        model_sha256=sha256_file(subject.candidates[0].path),
        data=subject.data.name,
        data_images=subject.data.count,
        data_sha256=subject.data.fingerprint(),
        load_average=load_average(),
        cpu_share=cpu_share,
        command=shlex.join(sys.argv) if sys.argv and Path(sys.argv[0]).name == "lowbit" else "",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _examples(predictions: Sequence[Prediction], data: Dataset) -> tuple[tuple[Example, ...], ...]:
    """For each prediction the images that it sees differently than the first."""
    if len(predictions) < 2 or not isinstance(data, Images) or data.preprocessing is None:
        return tuple(() for _ in predictions)
    names = data.class_names or ()
    return ((), *examples(predictions[0], predictions[1:], data, data.preprocessing, class_names=names))

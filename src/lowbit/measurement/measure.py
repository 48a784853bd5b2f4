"""Measure model files: everything in a row comes from the file on disk, re-opened."""

import dataclasses
import datetime
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.data.images import Images
from lowbit.engines import engine_version
from lowbit.errors import DataError, EngineError
from lowbit.files import sha256_file
from lowbit.formats.opening import load, opened
from lowbit.graph.model import Model
from lowbit.measurement.accuracy import score
from lowbit.measurement.conditions import RUNS, Conditions
from lowbit.measurement.entries import Entry, entries, label
from lowbit.measurement.environment import environment
from lowbit.measurement.examples import examples
from lowbit.measurement.inputs import as_taken, first_batch
from lowbit.measurement.memory import Memory, memory
from lowbit.measurement.prediction import Prediction, predict
from lowbit.measurement.reference import check_reference, described, layer_costs
from lowbit.measurement.results import Comparison
from lowbit.measurement.rows import Candidate, contents, expected_ratio, row, with_fastest
from lowbit.measurement.sizes import NO_CONTROL, with_sizes
from lowbit.measurement.speed import latency, load_average
from lowbit.progress import SILENT, Progress

Array = np.ndarray[Any, np.dtype[Any]]


def measure(
    files: Sequence[Path | str | Candidate],
    images: Images,
    *,
    engine: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    runs: int = RUNS,
    with_memory: bool = True,
    emulate: str = "",
    control: bool = False,
    progress: Progress = SILENT,
) -> Comparison:
    """Measure files on the same images; the first is the reference that the others are compared with.

    Args:
        files: ONNX, archive or LiteRT files of one model, the float ONNX one first.
        images: evaluation images; without labels agreement with the first file takes the place of accuracy.
        engine: runtime that predicts, and whose latency and memory are measured: a name, several with commas, or
            `auto` for all that are installed. With several each file has a row for each that opens it. LiteRT files
            run in LiteRT, whatever is asked for.
        threads: threads of the runtime while timing.
        batch: images a run while timing.
        runs: timed runs of each file; 0 leaves latency out.
        with_memory: also measure memory, each file in a process of its own.
        emulate: "x86" adds, behind each integer ONNX file, the answers that it gives on x86 without VNNI.
        control: also compress the first file with zstd -19 and xz -9, some seconds for each 10 MB.
        progress: told as the work goes on.

    Raises:
        ModelError, DataError, EngineError: a file, the images or the runtime is at fault; the message says which.
    """
    conditions = Conditions(
        engine=engine,
        threads=threads,
        batch=batch,
        runs=runs,
        with_memory=with_memory,
        emulate=emulate,
        control=control,
    )
    return measured(files, images, conditions, progress=progress)


def measured(
    files: Sequence[Path | str | Candidate],
    images: Images,
    conditions: Conditions,
    *,
    model: Model | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """`measure`, with its conditions in one piece.

    Args:
        files: see `measure`.
        images: see `measure`.
        conditions: see `measure`.
        model: the float model, if it is at hand; else it is read from the first file, which must then be an ONNX one.
        progress: see `measure`.
    """
    candidates = [file if isinstance(file, Candidate) else Candidate(Path(file).stem, Path(file)) for file in files]
    if not candidates:
        raise DataError("there is no file to measure.", remedy="Name at least one ONNX file.")
    if model is None:
        check_reference(candidates[0].path)
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        # Archives are measured as the ONNX files that they hold; their size is their own.
        paths = [opened(candidate.path, Path(folder)) for candidate in candidates]
        found, passed = entries(
            paths,
            images,
            engine=conditions.engine,
            made_for=[candidate.engines for candidate in candidates],
            emulate=conditions.emulate,
            batch=conditions.batch,
        )
        run = sorted({entry.file for entry in found})
        if not run or candidates[run[0]].recipe != candidates[0].recipe:
            raise EngineError(
                "no engine that is installed runs the first file.", where=str(paths[0]), remedy=" ".join(passed)
            )
        candidates, paths = [candidates[file] for file in run], [paths[file] for file in run]
        found = tuple(dataclasses.replace(entry, file=run.index(entry.file)) for entry in found)
        comparison = _measured(candidates, paths, found, images, conditions, model=model, progress=progress)
        rows = with_sizes(
            comparison.rows,
            [entry.file for entry in found],
            [candidate.path for candidate in candidates],
            control=conditions.control,
            progress=progress,
        )
        if conditions.control and rows[0].zstd_bytes is None:
            passed = (*passed, NO_CONTROL)
        return dataclasses.replace(comparison, rows=rows, notes=passed)


def _measured(
    candidates: Sequence[Candidate],
    paths: Sequence[Path],
    found: Sequence[Entry],
    images: Images,
    conditions: Conditions,
    *,
    model: Model | None,
    progress: Progress,
) -> Comparison:
    """`measure`, with the ONNX or LiteRT file of each candidate at hand."""
    costs, summary = described(model or load(candidates[0].path), images)
    several = len({entry.engine for entry in found}) > 1
    labels = [label(candidates[entry.file].recipe, entry, several=several) for entry in found]
    predictions = [
        predict(entry.model, images, engine=entry.engine, progress=progress, what=f"predicting: {name}")
        for entry, name in zip(found, labels, strict=True)
    ]
    scores = [
        score(prediction, reference=None if index == 0 else predictions[0])
        for index, prediction in enumerate(predictions)
    ]
    real = {str(index): entry for index, entry in enumerate(found) if not entry.emulated}
    inputs = {index: first_batch(as_taken(images, entry.model), conditions.batch) for index, entry in real.items()}
    times = (
        latency(
            {index: entry.model for index, entry in real.items()},
            inputs,
            engine={index: entry.engine for index, entry in real.items()},
            threads=conditions.threads,
            batch=conditions.batch,
            runs=conditions.runs,
            progress=progress,
        )
        if conditions.runs
        else {}
    )
    memories = {
        index: memory(entry.model, inputs[index], engine=entry.engine, threads=conditions.threads)
        for index, entry in progress.track(real.items(), "measuring memory", total=len(real))
        if conditions.with_memory
    }
    inside = contents(candidates, paths)
    shown = _examples(predictions, images)
    rows = []
    for index, entry in enumerate(found):
        candidate = candidates[entry.file]
        found_row = row(
            candidate,
            engine=entry.engine,
            first=inside[0],
            content=inside[entry.file],
            score=scores[index],
            time=times.get(str(index)),
            memory=memories.get(str(index), Memory(None, None)),
            costs=costs,
            shown=shown[index - 1] if index else (),
        )
        details = found_row.details
        if entry.file in (before.file for before in found[:index]):
            # What is in the file has been told with its first row.
            details = dataclasses.replace(details, layers=(), histograms=(), steps=(), notes=scores[index].notes)
        details = dataclasses.replace(details, notes=(*details.notes, *entry.notes))
        rows.append(
            dataclasses.replace(
                found_row,
                label="" if labels[index] == candidate.recipe else labels[index],
                emulated=entry.emulated,
                expected_ratio=None if entry.emulated else expected_ratio(candidates, entry, found, times),
                details=details,
            )
        )
    engines = dict.fromkeys(entry.engine for entry in found if not entry.emulated)
    where = dataclasses.replace(
        environment(),
        engine=", ".join(f"{name} {engine_version(name)}" for name in engines),
        threads=conditions.threads,
        batch=conditions.batch,
        runs=conditions.runs,
        warmup=10,
        model_sha256=sha256_file(candidates[0].path),
        data=images.name,
        data_images=images.count,
        data_sha256=images.fingerprint(),
        load_average=load_average(),
        cpu_share=times["0"].cpu_share if times else None,
        command=shlex.join(sys.argv) if sys.argv and Path(sys.argv[0]).name == "lowbit" else "",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return Comparison(with_fastest(rows, candidates, found), where, summary, layer_costs(costs))


def _examples(predictions: Sequence[Prediction], images: Images) -> tuple[tuple[Any, ...], ...]:
    how = images.preprocessing
    if len(predictions) < 2 or how is None:
        return tuple(() for _ in predictions[1:])
    return examples(
        predictions[0],
        predictions[1:],
        images,
        class_names=images.class_names or (),
        mean=how.mean,
        std=how.std,
        scale=how.scale,
        channels_last=how.layout == "NHWC",
    )

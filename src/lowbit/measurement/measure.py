"""Measure model files: everything in a row comes from the file on disk, re-opened."""

import dataclasses
import datetime
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.data.images import Images, check_labels
from lowbit.engines import engine_version
from lowbit.errors import DataError, ModelError
from lowbit.files import sha256_file
from lowbit.formats.ledger import Ledger
from lowbit.formats.opening import file_ledger, file_weights, load, opened
from lowbit.graph.cost import Cost, cost
from lowbit.graph.model import Model
from lowbit.measurement import error
from lowbit.measurement.accuracy import Score, score
from lowbit.measurement.entries import Entry, entries, label
from lowbit.measurement.environment import environment
from lowbit.measurement.examples import examples
from lowbit.measurement.inputs import as_taken, first_batch
from lowbit.measurement.memory import Memory, memory
from lowbit.measurement.prediction import Prediction, predict
from lowbit.measurement.results import (
    Comparison,
    Details,
    Histogram,
    LayerCostRow,
    LayerRow,
    ModelSummary,
    Row,
    Step,
)
from lowbit.measurement.sizes import with_sizes
from lowbit.measurement.speed import Latency, latency, load_average
from lowbit.progress import SILENT, Progress

Array = np.ndarray[Any, np.dtype[Any]]

RUNS = 200
HISTOGRAMS = 4


@dataclass(frozen=True)
class Candidate:
    """A file to be measured, and what is known of how it was made.

    Attributes:
        recipe: what the row is called.
        path: the file.
        bits: bits of a weight code, for the theoretical ratio; None if unknown.
        schemes: by layer, how its weight is encoded.
        reasons: by layer, why its weight stays float.
        notes: what was asked and not given.
        steps: what quantization ran.
        float_weights: by layer, the float weights that were encoded, where those are not the first file's (channels
            rescaled by equalization).
        expected: by engine, how many times faster than float it should be there.
    """

    recipe: str
    path: Path
    bits: int | None = None
    schemes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    float_weights: Mapping[str, Array] | None = None
    expected: Mapping[str, float] = dataclasses.field(default_factory=dict)


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
    progress: Progress = SILENT,
) -> Comparison:
    """Measure files on the same images; the first is the reference that the others are compared with.

    Args:
        files: ONNX files of one model, the float one first.
        images: evaluation images; without labels agreement with the first file takes the place of accuracy.
        engine: runtime that predicts, and whose latency and memory are measured: a name, several with commas, or
            `auto` for all that are installed. With several each file has a row for each that opens it. LiteRT files
            run in LiteRT, whatever is asked for.
        threads: threads of the runtime while timing.
        batch: images a run while timing.
        runs: timed runs of each file; 0 leaves latency out.
        with_memory: also measure memory, each file in a process of its own.
        emulate: "x86" adds, behind each integer ONNX file, the answers that it gives on x86 without VNNI.
        progress: told as the work goes on.

    Raises:
        ModelError, DataError, EngineError: a file, the images or the runtime is at fault; the message says which.
    """
    candidates = [file if isinstance(file, Candidate) else Candidate(Path(file).stem, Path(file)) for file in files]
    if not candidates:
        raise DataError("there is no file to measure.", remedy="Name at least one ONNX file.")
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        # Archives are measured as the ONNX files that they hold; their size is their own.
        paths = [opened(candidate.path, Path(folder)) for candidate in candidates]
        found, passed = entries(paths, engine=engine, emulate=emulate)
        comparison = _measured(
            candidates,
            paths,
            found,
            images,
            threads=threads,
            batch=batch,
            runs=runs,
            with_memory=with_memory,
            progress=progress,
        )
        rows = with_sizes(
            comparison.rows,
            [entry.file for entry in found],
            [candidate.path for candidate in candidates],
            progress=progress,
        )
        return dataclasses.replace(comparison, rows=rows, notes=passed)


def _measured(
    candidates: Sequence[Candidate],
    paths: Sequence[Path],
    found: Sequence[Entry],
    images: Images,
    *,
    threads: int,
    batch: int,
    runs: int,
    with_memory: bool,
    progress: Progress,
) -> Comparison:
    """`measure`, with the ONNX file of each candidate at hand."""
    reference = load(candidates[0].path)
    if images.labels is not None and reference.classes is not None:
        check_labels(images, reference.classes)
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
    inputs = {index: first_batch(as_taken(images, entry.model), batch) for index, entry in real.items()}
    times = (
        latency(
            {index: entry.model for index, entry in real.items()},
            inputs,
            engine={index: entry.engine for index, entry in real.items()},
            threads=threads,
            batch=batch,
            runs=runs,
            progress=progress,
        )
        if runs
        else {}
    )
    memories = {
        index: memory(entry.model, inputs[index], engine=entry.engine, threads=threads)
        for index, entry in progress.track(real.items(), "measuring memory", total=len(real))
        if with_memory
    }
    ledgers = [file_ledger(candidate.path, path) for candidate, path in zip(candidates, paths, strict=True)]
    weights = [file_weights(path) for path in paths]
    costs = _cost(reference, batch=1)
    shown = _examples(predictions, images)
    rows = []
    for index, entry in enumerate(found):
        candidate = candidates[entry.file]
        row = _row(
            candidate,
            engine=entry.engine,
            first=ledgers[0],
            ledger=ledgers[entry.file],
            score_=scores[index],
            time=times.get(str(index)),
            memory_=memories.get(str(index), Memory(None, None)),
            float_weights=weights[0] if candidate.float_weights is None else candidate.float_weights,
            weights=weights[entry.file],
            costs=costs,
            shown=shown[index - 1] if index else (),
        )
        details = row.details
        if entry.file in (before.file for before in found[:index]):
            # What is in the file has been told with its first row.
            details = dataclasses.replace(details, layers=(), histograms=(), steps=(), notes=scores[index].notes)
        details = dataclasses.replace(details, notes=(*details.notes, *entry.notes))
        rows.append(
            dataclasses.replace(
                row,
                label="" if labels[index] == candidate.recipe else labels[index],
                emulated=entry.emulated,
                expected_ratio=None if entry.emulated else _expected(candidate, entry, found, times),
                details=details,
            )
        )
    engines = dict.fromkeys(entry.engine for entry in found)
    where = dataclasses.replace(
        environment(),
        engine=", ".join(f"{name} {engine_version(name)}" for name in engines),
        threads=threads,
        batch=batch,
        runs=runs,
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
    summary = _summary(reference, costs, images)
    return Comparison(_with_fastest(rows, found), where, summary, _layer_costs(costs))


def _expected(candidate: Candidate, entry: Entry, found: Sequence[Entry], times: Mapping[str, Latency]) -> float | None:
    """The gain expected on this engine, in times of the reference: that of the float file on the same engine."""
    gain = candidate.expected.get(entry.engine)
    floats = (str(index) for index, other in enumerate(found) if other.file == 0 and other.engine == entry.engine)
    time = times.get(next(floats, ""))
    return None if gain is None or time is None else gain * time.ratio


def _with_fastest(rows: Sequence[Row], found: Sequence[Entry]) -> tuple[Row, ...]:
    """Name the engine that runs each file fastest, where several do."""
    timed: dict[int, list[Row]] = {}
    for row, entry in zip(rows, found, strict=True):
        if row.latency_ms is not None:
            timed.setdefault(entry.file, []).append(row)
    best = {
        file: min(those, key=lambda row: row.latency_ms or 0.0).engine
        for file, those in timed.items()
        if len(those) > 1
    }
    return tuple(
        row if entry.emulated else dataclasses.replace(row, fastest_engine=best.get(entry.file, ""))
        for row, entry in zip(rows, found, strict=True)
    )


def _row(
    candidate: Candidate,
    *,
    engine: str,
    first: Ledger,
    ledger: Ledger,
    score_: Score,
    time: Latency | None,
    memory_: Memory,
    float_weights: Mapping[str, Array],
    weights: Mapping[str, Array],
    costs: Cost | None,
    shown: tuple[Any, ...],
) -> Row:
    float_weights, weights = paired(float_weights, weights)
    errors = error.weight_errors(float_weights, weights)
    pooled = error.total(errors)
    notes = [*candidate.notes, *score_.notes]
    if not errors:
        notes.append("Weights were not compared: the layers of this file could not be paired with those of the first.")
    if memory_.note:
        notes.append(memory_.note)
    return Row(
        recipe=candidate.recipe,
        file=candidate.path.name,
        engine=engine,
        file_bytes=ledger.total,
        file_ratio=first.total / ledger.total,
        weight_bytes=ledger.weight_bytes,
        weight_ratio=first.weight_bytes / ledger.weight_bytes if ledger.weight_bytes else None,
        theoretical_ratio=32 / candidate.bits if candidate.bits else None,
        parameters=sum(ledger.counts.values()),
        macs=costs.macs if costs else None,
        weight_mse=pooled.mse if errors else None,
        weight_sqnr_db=pooled.sqnr_db if errors else None,
        accuracy=score_.accuracy,
        accuracy_low=score_.accuracy_low,
        accuracy_high=score_.accuracy_high,
        agreement=score_.agreement,
        loss=score_.loss,
        kl=score_.kl,
        flips=score_.flips,
        mcnemar_p=score_.mcnemar_p,
        latency_ms=time.median_ms if time else None,
        latency_low_ms=time.low_ms if time else None,
        latency_high_ms=time.high_ms if time else None,
        latency_ratio=time.ratio if time else None,
        load_memory_bytes=memory_.load_bytes,
        peak_memory_bytes=memory_.peak_bytes,
        details=Details(
            ledger=dict(ledger.bytes),
            parameter_counts=dict(ledger.counts),
            layers=_layer_rows(candidate, ledger, {item.name: item for item in errors}, costs),
            histograms=_histograms(float_weights, weights),
            examples=shown,
            steps=candidate.steps,
            notes=tuple(notes),
        ),
    )


def paired(before: Mapping[str, Array], after: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Weights of two files, layer by layer: by name, else in execution order where all shapes agree, else nothing."""
    if before.keys() == after.keys() and all(before[name].shape == after[name].shape for name in before):
        return dict(before), {name: after[name] for name in before}
    if [array.shape for array in before.values()] == [array.shape for array in after.values()]:
        return dict(before), dict(zip(before, after.values(), strict=True))
    return {}, {}


def _layer_rows(
    candidate: Candidate, ledger: Ledger, errors: Mapping[str, error.WeightError], costs: Cost | None
) -> tuple[LayerRow, ...]:
    macs = {layer.node: layer.macs for layer in costs.layers} if costs else {}
    rows = []
    for layer in ledger.layers:
        measured = errors.get(layer.node)
        rows.append(
            LayerRow(
                name=layer.node,
                op=layer.op,
                macs=macs.get(layer.node, 0),
                bytes=layer.code_bytes + layer.side_bytes,
                bits=layer.bits_per_weight,
                mse=measured.mse if measured else None,
                sqnr_db=measured.sqnr_db if measured else None,
                scheme=candidate.schemes.get(layer.node, ""),
                stays_float=candidate.reasons.get(layer.node, ""),
            )
        )
    return tuple(rows)


def _histograms(float_weights: Mapping[str, Array], weights: Mapping[str, Array]) -> tuple[Histogram, ...]:
    """The largest tensors, with the values that stand in for them where those are few."""
    largest = sorted(float_weights, key=lambda name: -float_weights[name].size)[:HISTOGRAMS]
    found = []
    for name in largest:
        values = np.unique(weights[name])
        found.append(
            error.weight_histogram(name, float_weights[name], code_book=values if values.size <= 256 else None)
        )
    return tuple(found)


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


def _cost(model: Model, *, batch: int) -> Cost | None:
    try:
        return cost(model, batch=batch)
    except ModelError:
        # Sizes that only the data decides have no MAC count; everything else can still be measured.
        return None


def _summary(model: Model, costs: Cost | None, images: Images) -> ModelSummary:
    return ModelSummary(
        name=model.source,
        trained_parameters=model.trained_parameters,
        parameters=costs.parameters if costs else 0,
        macs=costs.macs if costs else 0,
        input_shape=tuple(extent if isinstance(extent, int) else 1 for extent in model.input.shape),
        classes=tuple(images.class_names or ()),
    )


def _layer_costs(costs: Cost | None) -> tuple[LayerCostRow, ...]:
    return tuple(
        LayerCostRow(
            name=layer.node,
            op=layer.op,
            macs=layer.macs,
            parameters=layer.parameters,
            weight_bytes=layer.weight_bytes,
            output_shape=layer.output_shape,
        )
        for layer in (costs.layers if costs else ())
    )

"""From what was measured to the rows of the table; everything comes from the file on disk, re-opened."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.errors import ModelError
from lowbit.formats.ledger import Ledger
from lowbit.formats.micro.report import micro_report
from lowbit.formats.opening import file_ledger, file_weights, is_litert
from lowbit.graph.cost import Cost
from lowbit.measurement import error
from lowbit.measurement.accuracy import Score
from lowbit.measurement.by_class import calibration_error
from lowbit.measurement.details import Details, Example, Histogram, LayerRow, Step
from lowbit.measurement.entries import Entry
from lowbit.measurement.layer_times import LayerTimes
from lowbit.measurement.memory import Memory
from lowbit.measurement.outputs import least_agreement, worst
from lowbit.measurement.results import Row, finite
from lowbit.measurement.speed import Latency

Array = np.ndarray[Any, np.dtype[Any]]

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
        notes: what was requested and not given.
        steps: what quantization ran.
        float_weights: by layer, the float weights that were encoded, where those are not the first file's (channels
            rescaled by equalization).
        expected: by engine, how many times faster than float it should be there.
        engines: that the file was made for, where each engine has a file of its own; empty for any that opens it.
        file_recipe: by which the file says it was quantized, where the row is not called after it.
    """

    recipe: str
    path: Path
    bits: int | None = None
    schemes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    float_weights: Mapping[str, Array] | None = dataclasses.field(default=None, repr=False)
    expected: Mapping[str, float] = dataclasses.field(default_factory=dict)
    engines: tuple[str, ...] = ()
    file_recipe: str = ""


@dataclass(frozen=True)
class Content:
    """The content of a file, whichever engine runs it.

    Attributes:
        ledger: where its bytes are.
        errors: of the weights, layer by layer; empty if its layers could not be paired with those of the first file.
        histograms: of the largest tensors.
        arena_bytes: RAM that a .tflite file takes on a microcontroller; None for other files, and for any with more
            activations than such a network has.
    """

    ledger: Ledger
    errors: tuple[error.WeightError, ...]
    histograms: tuple[Histogram, ...]
    arena_bytes: int | None


def contents(candidates: Sequence[Candidate], paths: Sequence[Path]) -> list[Content]:
    """Look into each file; the weights of the first and of one other are in memory at a time.

    Args:
        candidates: the files as the user named them, the reference first.
        paths: the ONNX or LiteRT file of each.
    """
    first = file_weights(paths[0])
    files = []
    for index, (candidate, path) in enumerate(zip(candidates, paths, strict=True)):
        before = first if candidate.float_weights is None else candidate.float_weights
        before, after = paired(before, file_weights(path) if index else first)
        histograms = _histograms(before, after)
        errors = error.weight_errors(before, after)
        files.append(Content(file_ledger(candidate.path, path), errors, histograms, _arena_bytes(path)))
    return files


def _arena_bytes(path: Path) -> int | None:
    if not is_litert(path):
        return None
    try:
        return micro_report(path).arena.bytes
    except ModelError:
        return None


def expected_ratio(
    candidates: Sequence[Candidate], entry: Entry, rows: Sequence[Entry], times: Mapping[str, Latency]
) -> float | None:
    """How many times faster than the reference a file should be: the gain expected over float on the same engine, times
    what that engine's float file gains over the reference.
    """
    if entry.emulated:
        return None
    gain = candidates[entry.file].expected.get(entry.engine)
    floats = (
        str(index)
        for index, other in enumerate(rows)
        if other.engine == entry.engine and _belong(candidates, 0, other.file)
    )
    time = times.get(next(floats, ""))
    return None if gain is None or time is None else gain * time.ratio


def with_fastest(rows: Sequence[Row], candidates: Sequence[Candidate], entries: Sequence[Entry]) -> tuple[Row, ...]:
    """Name the engine that is fastest, where several run a file, or files of their own of the same recipe."""
    # The first file that belongs together with each.
    groups = [
        next(other for other in range(index + 1) if _belong(candidates, other, index))
        for index in range(len(candidates))
    ]
    timed: dict[int, list[Row]] = {}
    for row, entry in zip(rows, entries, strict=True):
        if row.latency_ms is not None:
            timed.setdefault(groups[entry.file], []).append(row)
    best = {
        group: min(those, key=lambda row: row.latency_ms or 0.0).engine
        for group, those in timed.items()
        if len(those) > 1
    }
    return tuple(
        row if entry.emulated else dataclasses.replace(row, fastest_engine=best.get(groups[entry.file], ""))
        for row, entry in zip(rows, entries, strict=True)
    )


def _belong(candidates: Sequence[Candidate], one: int, other: int) -> bool:
    """Whether two files are the same one, or were made of one recipe for different engines."""
    first, second = candidates[one], candidates[other]
    return one == other or bool(first.engines and second.engines and first.recipe == second.recipe)


@dataclass(frozen=True)
class Measured:
    """Everything that was measured of one file on one engine.

    Attributes:
        candidate: the file.
        entry: which engine ran it.
        label: what the row is called.
        content: what is in the file.
        first_row: whether this is the first row of the file: what is in a file is told once.
        score: of its outputs.
        time: of one inference, if that was measured.
        memory: that it needs.
        layer_times: of its layers, where the engine tells.
        examples: images that it sees differently than float.
    """

    candidate: Candidate
    entry: Entry
    label: str
    content: Content
    first_row: bool
    score: Score
    time: Latency | None
    memory: Memory
    layer_times: LayerTimes | None
    examples: tuple[Example, ...]


def row(measured: Measured, *, first: Content, costs: Cost | None) -> Row:
    """One file on one engine.

    Args:
        measured: what was measured.
        first: content of the first file, which ratios refer to.
        costs: of the layers, if they are known.
    """
    candidate, score, time = measured.candidate, measured.score, measured.time
    ledger, errors = measured.content.ledger, measured.content.errors
    pooled, farthest = error.total(errors), worst(score.outputs)
    return Row(
        recipe=candidate.recipe,
        file=candidate.path.name,
        file_recipe=candidate.file_recipe,
        engine=measured.entry.engine,
        label="" if measured.label == candidate.recipe else measured.label,
        emulated=measured.entry.emulated,
        file_bytes=ledger.total,
        file_ratio=first.ledger.total / ledger.total,
        weight_bytes=ledger.weight_bytes,
        weight_ratio=first.ledger.weight_bytes / ledger.weight_bytes if ledger.weight_bytes else None,
        theoretical_ratio=32 / candidate.bits if candidate.bits else None,
        parameters=sum(ledger.counts.values()),
        macs=costs.macs if costs else None,
        weight_mse=pooled.mse if errors else None,
        weight_sqnr_db=pooled.sqnr_db if errors else None,
        accuracy=score.accuracy,
        accuracy_low=score.accuracy_low,
        accuracy_high=score.accuracy_high,
        agreement=score.agreement,
        loss=score.loss,
        kl=score.kl,
        flips=score.flips,
        mcnemar_p=score.mcnemar_p,
        calibration_error=calibration_error(score.by_class.bins) if score.by_class else None,
        verdict=score.verdict.word if score.verdict else "",
        drop_low=finite(score.verdict.low) if score.verdict else None,
        drop_high=finite(score.verdict.high) if score.verdict else None,
        samples_needed=score.verdict.needed if score.verdict else None,
        output_error=farthest.relative_error if farthest else None,
        output_sqnr_db=farthest.sqnr_db if farthest else None,
        output_agreement=least_agreement(score.outputs),
        worst_output=farthest.name if farthest else "",
        scores=score.scores,
        latency_ms=time.median_ms if time else None,
        latency_low_ms=time.low_ms if time else None,
        latency_high_ms=time.high_ms if time else None,
        latency_ratio=time.ratio if time else None,
        load_ms=measured.memory.load_ms,
        load_memory_bytes=measured.memory.load_bytes,
        peak_memory_bytes=measured.memory.peak_bytes,
        arena_bytes=measured.content.arena_bytes,
        details=_details(measured, costs),
    )


def _details(measured: Measured, costs: Cost | None) -> Details:
    candidate, content = measured.candidate, measured.content
    details = Details(
        ledger=dict(content.ledger.bytes),
        parameter_counts=dict(content.ledger.counts),
        examples=measured.examples,
        outputs=measured.score.outputs,
        by_class=measured.score.by_class,
        layer_us=dict(measured.layer_times.layers) if measured.layer_times else {},
        other_us=measured.layer_times.other if measured.layer_times else None,
        notes=(*measured.score.notes, *measured.entry.notes),
    )
    if not measured.first_row:
        return details
    notes = [*candidate.notes, *measured.score.notes]
    if not content.errors:
        notes.append("Weights were not compared: the layers of this file could not be matched with the first file's.")
    if measured.memory.note:
        notes.append(measured.memory.note)
    return dataclasses.replace(
        details,
        layers=_layer_rows(candidate, content.ledger, {item.name: item for item in content.errors}, costs),
        histograms=content.histograms,
        steps=candidate.steps,
        notes=(*notes, *measured.entry.notes),
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
                code_bits=8 * layer.code_bytes / max(1, layer.weights),
            )
        )
    return tuple(rows)


def _histograms(float_weights: Mapping[str, Array], weights: Mapping[str, Array]) -> tuple[Histogram, ...]:
    """The largest tensors, with the values that stand in for them where those are few."""
    largest = sorted(float_weights, key=lambda name: -float_weights[name].size)[:HISTOGRAMS]
    histograms = []
    for name in largest:
        values = np.unique(weights[name])
        histograms.append(
            error.weight_histogram(name, float_weights[name], code_book=values if values.size <= 256 else None)
        )
    return tuple(histograms)

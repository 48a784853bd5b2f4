"""Two files layer by layer: where the outputs of another tool's file part from those of the float model, and why.

A layer is not to blame for what it is given. So three things are looked at: how far its output is from float's, how far
it is from what the float layer would have made of the same input (what the layer itself adds), and its weights, decoded
from the file. Tensors are matched by name, or where tools have renamed them by order and value.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.calibration.batches import samples_per_run
from lowbit.data.dataset import Dataset
from lowbit.diagnosis.findings import BROKEN, KERNELS, PARTING, Diagnosis, Finding, TensorRow
from lowbit.diagnosis.pairs import NEAR, Pair, error_of, outputs_of
from lowbit.diagnosis.weights import WeightLoss, weight_losses
from lowbit.engines import Session, fed, open_session
from lowbit.errors import ModelError
from lowbit.formats.onnx.inner_tensors import decoded_weights, with_inner_tensors
from lowbit.formats.opening import is_litert, opened
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.graph.subgraph import Subgraphs
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.entries import entries
from lowbit.measurement.inputs import as_taken
from lowbit.progress import SILENT, Progress

SAMPLES = 8
MOST_BYTES = 256 << 20  # of tensors inside the other file, for all samples
APART = 0.05  # relative error of the outputs from which a cause is looked for
ADDED = 0.1  # that a layer itself adds
TIMES_USUAL = 10.0
LOST = 0.1  # share of a layer's weights that is lost
OTHERWISE = 0.02  # relative error between a file's answers and those that it computes step by step

Array = np.ndarray[Any, np.dtype[Any]]


def compared(model: Model, other: Path, data: Dataset, *, progress: Progress = SILENT) -> Diagnosis:
    """Where another file of a model parts from it.

    Args:
        model: the prepared float model.
        other: an ONNX file that any tool made of it, or an archive.
        data: samples; labels are not used.
        progress: told as the work goes on.

    Raises:
        ModelError: not an ONNX file.
        EngineError: the runtime refuses it, or it ends the runtime's process.
    """
    if is_litert(other):
        raise ModelError(
            "tensors inside a .tflite file cannot be looked at.",
            where=str(other),
            remedy="Give the ONNX file, or measure the answers of both with `lowbit measure`.",
        )
    size = samples_per_run(model, data) or 1
    few = data.subset(min(data.count, -(-SAMPLES // size) * size))
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        path = opened(other, Path(folder))
        # In a process of its own first: damaged files can end it.
        entries((path,), few, Conditions(batch=size), progress=progress)
        content, names = with_inner_tensors(path)
        whole, inside = (_answers(open_session(file), as_taken(few, path), size) for file in (path, content))
        raw = _raw_weights(model)
        losses = weight_losses(model, raw, decoded_weights(path))
    wanted = _float_tensors(model, few, size)
    ordered = [(name, inside[name]) for name in names if name in inside and inside[name].dtype.kind == "f"]
    pair = Pair(model, wanted, inside, ordered, losses, size)
    rows = [pair.row(layer) for layer in progress.track(layers(model), "comparing layers")]
    outputs = [info.name for info in model.outputs]
    # A file for another engine may name its outputs differently, in the same order.
    ends = {name: whole.get(name, value) for name, value in zip(outputs, whole.values(), strict=False)}
    error = max((error_of(wanted[name], ends[name]) for name in outputs if name in ends), default=0.0)
    findings = _findings(model, other.name, rows, losses, error)
    given = {info.name for info in model.inputs}
    steps = max((error_of(whole[name], inside[name]) for name in whole.keys() & inside.keys() - given), default=0.0)
    said = max((error_of(wanted[name], inside[name]) for name in outputs if name in inside), default=0.0)
    findings += saturating(other.name, steps, error, said)
    return Diagnosis(
        model.source, "", findings, measure="relative error", samples=few.count, tensors=tuple(rows), error=error
    )


def saturating(other: str, steps: float, error: float, said: float) -> tuple[Finding, ...]:
    """What is found where a file's kernels compute something else than the file says, and worse.

    In a deep network answers differ as well where codes fall to the other side in exact kernels, but are no worse.

    Args:
        other: name of the file.
        steps: relative error between its answers and those that it computes step by step.
        error: of its answers, from the float model's.
        said: likewise, of those step by step.
    """
    if steps <= OTHERWISE or error <= said + OTHERWISE:
        return ()
    what = f"answers are {steps:.2g} from what the file says, computed step by step"
    cure = "Its integer kernels saturate on this processor: quantize to 7 bits, or for its --target."
    return (Finding(KERNELS, other, what, cure),)


def _answers(session: Session, data: Dataset, size: int) -> dict[str, Array]:
    """Every input and output of a session for all samples, [samples, ...]; large ones of the first samples only."""
    parts: dict[str, list[Array]] = {}
    held = 0
    for batch in data.batches(size):
        if len(batch) < size:  # which the session may not take
            break
        for name, value in (session.run(fed(session, batch.inputs)) | batch.inputs).items():
            parts.setdefault(name, []).append(value)
            held += value.nbytes
        if held > MOST_BYTES:
            break
    return {name: _joined(values) for name, values in parts.items()}


def _joined(values: Sequence[Array]) -> Array:
    alike = len({value.shape for value in values}) == 1 and values[0].ndim > 0
    return np.concatenate(values) if alike else np.stack([np.ravel(values[0])])


def _float_tensors(model: Model, data: Dataset, size: int) -> dict[str, Array]:
    """Inputs and outputs of all layers, and the model's own."""
    names = {name for layer in layers(model) for name in (layer.input, *outputs_of(model, layer))}
    names |= {info.name for info in model.outputs}
    given = [info.name for info in model.inputs]
    piece, _ = Subgraphs(model).extract(
        given, [name for name in model.values if name in names - set(given)], weights={}
    )
    return _answers(open_session(piece), data, size)


def _raw_weights(model: Model) -> dict[str, Array]:
    """The weights of the float file as they stand there, before batch norms were folded; empty if it is not there."""
    path = Path(model.source)
    return decoded_weights(path) if path.is_file() and path.suffix == ".onnx" else {}


def _findings(
    model: Model, other: str, rows: Sequence[TensorRow], losses: Mapping[str, WeightLoss], error: float
) -> tuple[Finding, ...]:
    """Layers whose weights are lost; else, if the answers part, the first layer that adds far more than others."""
    added = [row.added for row in rows if row.added is not None]
    usual = float(np.median(added)) if added else 0.0
    usual_loss = float(np.median([loss.error for loss in losses.values()])) if losses else 0.0
    by_node = {row.node: row for row in rows}
    broken = []
    for node, loss in losses.items():
        itself = by_node[node].added if node in by_node else None
        if error < APART or (itself or 0.0) < ADDED:  # equalization, which the next layer makes up for, is no loss
            loss = loss.rescaled
        if loss.error > max(LOST, TIMES_USUAL * usual_loss) or loss.channels:
            broken.append(Finding(BROKEN, node, _lost(other, loss), "Quantize this layer again, or leave it float."))
    if broken or error < APART:
        return tuple(broken)
    first = next((row for row in rows if row.added is not None and row.added > max(ADDED, TIMES_USUAL * usual)), None)
    worst = max((row for row in rows if row.added is not None), key=lambda row: row.added or 0.0, default=None)
    blamed = first or (worst if error > NEAR else None)  # small errors of all layers add up
    if blamed is None:
        return ()
    what = (
        f"the outputs part here: {blamed.added:.2g} of its output's variance is lost in this layer alone, and "
        f"{error:.2g} at the end"
    )
    return (Finding(PARTING, blamed.node, what, "Leave this layer float, or give it more bits."),)


def _lost(other: str, loss: WeightLoss) -> str:
    if loss.channels:
        listed = ", ".join(map(str, loss.channels[:5])) + (", ..." if len(loss.channels) > 5 else "")
        which = f"output channel{'s' if len(loss.channels) > 1 else ''} {listed}"
    else:
        which = "its weights"
    return f"{which} in {other} are not the float ones: {100 * min(loss.error, 1):.0f} % of the layer's weights is lost"

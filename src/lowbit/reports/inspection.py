"""One model in the terminal: its layers and what they cost, and where the bytes of its file are."""

from dataclasses import asdict
from typing import Any

from lowbit.formats.ledger import Ledger, StoredLayer
from lowbit.graph.cost import Cost, LayerCost
from lowbit.graph.model import Model
from lowbit.printable import listed
from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.reports.tables import fitted, numbers, words

WIDE = 110  # cells of a terminal from which on parameters, types and values of weights have columns
COUNTED = {
    "codes": "quantized weights",
    "float_weights": "float weights",
    "scales": "scales",
    "zero_points": "zero points",
    "code_books": "code book entries",
    "biases": "biases",
    "constants": "other constants",
    "numbers": "scales, biases and code books",
    "metadata": "metadata",
    "graph": "graph",
    "padding": "padding",
}


def print_inspection(model: Model, cost: Cost, ledger: Ledger, *, console: Console | None = None) -> None:
    """Layers with shapes, MACs and bytes, on a wide terminal with parameters and values of weights; then the totals."""
    console = console or Console()
    stored = {layer.node: layer for layer in ledger.layers}
    wide = console.width >= WIDE
    columns = [words("layer"), words("op"), words("output"), words("weight"), numbers("MACs"), numbers("bytes")]
    columns += [numbers("bits"), *((numbers("parameters"), words("type"), words("values")) if wide else ())]
    rows = []
    for layer in cost.layers:
        kept = stored.get(layer.node)
        row = [
            layer.node,
            layer.op,
            units.shape(layer.output_shape),
            units.shape(layer.weight_shape),
            units.amount(layer.macs),
            units.size(kept.code_bytes + kept.side_bytes if kept else layer.weight_bytes),
            f"{kept.bits_per_weight:.2f}" if kept else units.MISSING,
        ]
        values = f"{layer.weight_min:.3g} to {layer.weight_max:.3g}" if layer.weight_shape else units.MISSING
        rows.append([*row, *((units.count(layer.parameters), _type(layer, kept), values) if wide else ())])
    console.print(fitted(columns, rows, console.width))
    console.print(
        f"{model.source}: {_inputs(model)}, {_parameters(cost)}, {units.amount(cost.macs)} MACs = "
        f"{units.amount(cost.flops)} FLOPs for one sample (1 MAC = 2 FLOPs).",
        highlight=False,
    )
    classes = f"Classes: {listed(model.class_names, 10)}." if model.class_names else ""
    for remark in filter(None, (*model.remarks, model.preprocessing_note or _images_of(model), classes)):
        console.print(remark, markup=False, highlight=False)
    console.print("`lowbit explain bits` says what a heading means.", style="dim", highlight=False)


def _type(layer: LayerCost, kept: StoredLayer | None) -> str:
    """What a weight is in the file, of two activations what they are."""
    return kept.type if kept is not None and kept.type else layer.dtype


def _parameters(cost: Cost) -> str:
    """How many there are; scale and shift of batch norms that were folded are none any more."""
    trained = f"{units.count(cost.trained_parameters)} parameters"
    if cost.parameters == cost.trained_parameters:
        return trained
    return f"{trained} as trained, {units.count(cost.parameters)} after folding batch norms"


def _images_of(model: Model) -> str:
    """How images become the input, in a sentence; empty where nothing is said."""
    return "" if model.preprocessing is None else f"Images become the input: {model.preprocessing}."


def _inputs(model: Model) -> str:
    """The inputs by shape; of several, or of other numbers than float32, by name and type as well."""
    types = {info.name: model.precision.ends.get(info.name, info.dtype.name) for info in model.inputs}
    if list(types.values()) == ["float32"]:
        return f"input {units.shape(model.inputs[0].shape, ' x ')}"
    named = (f"{info.name} {types[info.name]} {units.shape(info.shape, ' x ')}" for info in model.inputs)
    return f"input{'s' if len(model.inputs) > 1 else ''} {', '.join(named)}"


def print_ledger(ledger: Ledger, *, console: Console | None = None) -> None:
    """Numbers and bytes by kind; the bytes sum to the file."""
    console = console or Console()
    rows = [
        (COUNTED.get(kind, kind), units.count(ledger.counts.get(kind)), units.count(size))
        for kind, size in ledger.bytes.items()
        if size or ledger.counts.get(kind)
    ]
    rows.append(("total", units.count(sum(ledger.counts.values())), units.count(ledger.total)))
    columns = (words("in the file"), numbers("numbers"), numbers("bytes"))
    console.print(fitted(columns, rows, console.width, total=True))


def inspection_json(model: Model, cost: Cost, ledger: Ledger) -> dict[str, Any]:
    """The same as plain data."""
    stored = {layer.node: layer for layer in ledger.layers}
    return {
        "model": model.source,
        "remarks": list(model.remarks),
        "preprocessing": model.preprocessing and asdict(model.preprocessing),
        "preprocessing_note": model.preprocessing_note,
        "class_names": list(model.class_names),
        "inputs": [{"name": info.name, "shape": list(info.shape), "dtype": info.dtype.name} for info in model.inputs],
        "trained_parameters": cost.trained_parameters,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "flops": cost.flops,
        "file_bytes": ledger.total,
        "bytes": dict(ledger.bytes),
        "counts": dict(ledger.counts),
        "layers": [
            {
                "node": layer.node,
                "op": layer.op,
                "input_shape": list(layer.input_shape),
                "output_shape": list(layer.output_shape),
                "weight_shape": list(layer.weight_shape),
                "parameters": layer.parameters,
                "macs": layer.macs,
                "flops": 2 * layer.macs,
                "weight_bytes": stored[layer.node].code_bytes + stored[layer.node].side_bytes
                if layer.node in stored
                else layer.weight_bytes,
                "dtype": layer.dtype,
                "stored_as": _type(layer, stored.get(layer.node)),
                "weight_min": layer.weight_min,
                "weight_max": layer.weight_max,
            }
            for layer in cost.layers
        ],
    }

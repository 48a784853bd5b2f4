"""One model in the terminal: its layers and what they cost, what a recipe will do, and what was written."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lowbit.formats.ledger import Ledger
from lowbit.graph.cost import Cost
from lowbit.graph.model import Model
from lowbit.quantization.passes.validation import NOT_JUDGED
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.target import described
from lowbit.quantization.quantized import Quantized
from lowbit.reports import units
from lowbit.reports.console import Console

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
    """Layers with shapes, parameters, MACs and weights; then the totals."""
    console = console or Console()
    stored = {layer.node: layer for layer in ledger.layers}
    rows = []
    for layer in cost.layers:
        kept = stored.get(layer.node)
        rows.append(
            (
                layer.node,
                layer.op,
                _shape(layer.output_shape),
                _shape(layer.weight_shape),
                units.count(layer.parameters),
                units.amount(layer.macs),
                units.size(kept.code_bytes + kept.side_bytes if kept else layer.weight_bytes),
                f"{kept.bits_per_weight:.2f}" if kept else units.MISSING,
                layer.dtype,
                f"{layer.weight_min:.3g} to {layer.weight_max:.3g}" if layer.weight_shape else units.MISSING,
            )
        )
    heads = ("layer", "op", "output", "weight", "parameters", "MACs", "weight bytes", "bits", "type", "weight range")
    console.print(table(heads, rows, left=2))
    console.print(
        f"{model.source}: {_inputs(model)}, "
        f"{units.count(cost.trained_parameters)} parameters as trained, "
        f"{units.count(cost.parameters)} after folding batch norms, "
        f"{cost.macs / 1e6:,.2f} M MACs = {cost.flops / 1e6:,.2f} M FLOPs for one sample (1 MAC = 2 FLOPs).",
        markup=False,
        highlight=False,
    )
    for remark in (*model.remarks, model.preprocessing_note or _images_of(model)):
        console.print(remark, markup=False, highlight=False, end="\n" if remark else "")


def _images_of(model: Model) -> str:
    """How images become the input, in a sentence; empty where nothing is said."""
    return "" if model.preprocessing is None else f"Images become the input: {model.preprocessing}."


def _inputs(model: Model) -> str:
    """The inputs by shape; of several, or of other numbers than float32, by name and type as well."""
    types = {info.name: model.precision.ends.get(info.name, info.dtype.name) for info in model.inputs}
    if list(types.values()) == ["float32"]:
        return f"input {_shape(model.inputs[0].shape)}"
    named = (f"{info.name} {types[info.name]} {_shape(info.shape)}" for info in model.inputs)
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
    console.print(table(("in the file", "numbers", "bytes"), rows, left=1))


def inspection_json(model: Model, cost: Cost, ledger: Ledger) -> dict[str, Any]:
    """The same as plain data."""
    stored = {layer.node: layer for layer in ledger.layers}
    return {
        "model": model.source,
        "remarks": list(model.remarks),
        "preprocessing": model.preprocessing and asdict(model.preprocessing),
        "preprocessing_note": model.preprocessing_note,
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
                "weight_min": layer.weight_min,
                "weight_max": layer.weight_max,
            }
            for layer in cost.layers
        ],
    }


def print_plan(plan: Plan, *, console: Console | None = None) -> None:
    """What was requested, by which rule, and what is given, tensor by tensor; where there are integers node by node."""
    console = console or Console()
    rows = [
        (
            tensor.tensor,
            _shape(tensor.shape),
            f"{tensor.share:.1%}",
            *((tensor.rule,) if plan.rules else ()),
            _scheme(tensor.asked),
            _scheme(tensor.given),
            tensor.reason,
        )
        for tensor in plan.tensors
    ]
    by = ("rule",) if plan.rules else ()
    heads = ("tensor", "shape", "share", *by, "requested", "given", "reason")
    console.print(table(heads, rows, left=len(heads)))
    if plan.nodes:
        nodes = [(node.node, node.op, node.arithmetic, node.reason) for node in plan.nodes]
        console.print(table(("node", "op", "computes in", "reason"), nodes, left=4))
        counted = Counter(node.arithmetic for node in plan.nodes)
        said = f"{counted['integer']} nodes run in integers, {counted['absorbed']} are absorbed into them, "
        said += f"{counted['float']} stay float."
        if counted["float16"] or counted["float32"]:
            said = f"{counted['float16']} nodes compute in float16, {counted['float32']} stay in float32."
        console.print(said, highlight=False)
    _print_target(plan, console)
    _print_downgrades(plan, console)


def print_written(
    quantized: Quantized, path: Path, ledger: Ledger, *, source_bytes: int, console: Console | None = None
) -> None:
    """What was written, its size by kind, the steps that ran, and what was requested and not given."""
    console = console or Console()
    plan = quantized.plan
    console.print(
        f"{path}: {plan.title}, {units.count(ledger.total)} bytes, "
        f"{units.smaller(source_bytes / ledger.total)} than the original"
        f"{f' ({plan.shortfall})' if plan.shortfall else ''}; "
        f"{ledger.bits_per_weight:.2f} bits per weight, scales and code books included.",
        markup=False,
        highlight=False,
    )
    print_ledger(ledger, console=console)
    for step in quantized.steps:
        change = f"from float {step.before:.2g} -> {step.after:.2g} on calibration images that judge "
        change += f"({step.fitted:.2g} on those it was fitted to)"
        how = f"{step.measure} {'(no output has something for each image)' if step.measure == NOT_JUDGED else change}"
        outcome = f"{'kept' if step.kept else 'dropped'}, {step.seconds:.1f} s"
        console.print(
            f"{step.name}: {how}, {outcome}" + (f" ({step.note})" if step.note else ""), markup=False, highlight=False
        )
    _print_target(plan, console)
    _print_downgrades(plan, console)
    for note in quantized.notes_on(path):
        console.print(note, markup=False, highlight=False)


def written_json(quantized: Quantized, path: Path, ledger: Ledger, *, source_bytes: int) -> dict[str, Any]:
    """The same as plain data."""
    plan = quantized.plan
    return {
        "file": str(path),
        "recipe": plan.recipe.name,
        "rules": list(plan.rules),
        "file_bytes": ledger.total,
        "ratio": source_bytes / ledger.total,
        "bits_per_weight": ledger.bits_per_weight,
        "bytes": dict(ledger.bytes),
        "counts": dict(ledger.counts),
        "downgrades": list(plan.downgrades),
        "float_share": plan.float_share,
        "shortfall": plan.shortfall,
        "target": plan.target,
        "adaptations": list(plan.adaptations),
        "limits": list(plan.limits),
        "steps": [asdict(step) for step in quantized.steps],
        "notes": list(quantized.notes_on(path)),
        "plan": plan.to_json(),
    }


def _print_target(plan: Plan, console: Console) -> None:
    if plan.target:
        console.print(described(plan.recipe.target, plan.target), highlight=False)
    for note in plan.adaptations:
        console.print(f"  {note}.", highlight=False)
    for note in plan.limits:
        console.print(f"{note[0].upper()}{note[1:]}.", markup=False, highlight=False)


def _print_downgrades(plan: Plan, console: Console) -> None:
    for note in plan.downgrades:
        console.print(Text.assemble(("! ", "yellow"), note))


def _scheme(scheme: Any) -> str:  # noqa: ANN401 - a scheme or None
    return scheme.name if scheme is not None else "float"


def _shape(shape: Sequence[int | str | None]) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in shape) or units.MISSING


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> Table:
    """A table whose first `left` columns are text and the others numbers."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    for place, head in enumerate(heads):
        made.add_column(head, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made

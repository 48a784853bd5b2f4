"""What `lowbit quantize` wrote: its size by kind, the steps that ran, and what was requested and not given."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lowbit.formats.ledger import Ledger
from lowbit.quantization.passes.steps import StepResult
from lowbit.quantization.passes.validation import NOT_JUDGED
from lowbit.quantization.quantized import Quantized
from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.reports.inspection import print_ledger
from lowbit.reports.plans import Noted, print_downgrades, print_target
from lowbit.reports.tables import fitted, numbers, words

STEPS = "Distance from float on calibration images that judge; fitted: on those that the step was fitted to."
SAME = "Distance from float on the calibration images: too few to set some apart, so all fit and all judge."


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
        highlight=False,
    )
    print_ledger(ledger, console=console)
    if quantized.steps:
        table = step_table(quantized.steps)
        console.print(fitted(table.columns, table.rows, console.width))
        for note in table.notes:
            console.print(note, style="dim", highlight=False)
    print_target(plan, console)
    print_downgrades(plan, console)
    for note in quantized.notes_on(path):
        console.print(note, highlight=False)


def step_table(steps: tuple[StepResult, ...]) -> Noted:
    """A row for each step: how far from float the network was before and after it, and whether it was kept."""
    columns = [words("step"), numbers("before"), numbers("after"), numbers("fitted"), words("measure")]
    columns += [words("outcome"), numbers("seconds")]
    rows, notes = [], []
    for step in steps:
        judged = step.measure != NOT_JUDGED
        figures = [units.divergence(x) if judged else units.MISSING for x in (step.before, step.after, step.fitted)]
        measure = step.measure if judged else units.MISSING
        outcome = "kept" if step.kept else "dropped"
        rows.append([step.name, *figures, measure, outcome, f"{step.seconds:.1f}"])
        if step.note or not judged:
            said = [NOT_JUDGED] * (not judged) + [step.note] * bool(step.note)
            notes.append(f"{step.name}: {'; '.join(said)}.")
    changed = [step for step in steps if step.before != step.after]
    alike = bool(changed) and all(step.fitted == step.after for step in changed)
    return Noted(columns, rows, [SAME if alike else STEPS, *notes])


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

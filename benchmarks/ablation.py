"""What each step between plan and codes contributes.

    python benchmarks/ablation.py --data ../shared/data [--models resnet20] [--recipes linear3]
    python benchmarks/ablation.py --table           # the table from results/ablation.csv

Each recipe is quantized with only some of its steps, and the file is evaluated on test images that no step has seen. A
row is written as soon as it is measured; notes mark the steps that a recipe takes by default.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from machine import stamp
from rows import Results, argument_parser, by_model, cell, escaped, line
from subjects import MODELS, Subject, open_subject

import lowbit
from lowbit.calibration.divergence import answers, mean_kl
from lowbit.data.images import Images
from lowbit.errors import LowbitError
from lowbit.quantization.planning.recipes import parse_recipe

CALIBRATION = 250

INTEGER = ((), ("exact-input",), ("exact-input", "equalization"), ("exact-input", "bias"))
INTEGER += (("exact-input", "equalization", "bias"), ("exact-input", "equalization", "rounding"))
WEIGHTS = ((), ("bias",), ("rounding",), ("equalization", "rounding"))
# what the row is called -> (recipe, what shares a scale or code book, the choices of steps)
RECIPES = {
    "int8": ("int8", "channel", INTEGER),
    "int8 per tensor": ("int8", "tensor", INTEGER),
    "linear3": ("linear3", "channel", WEIGHTS),
    "cluster3": ("cluster3", "tensor", WEIGHTS),
}


@dataclass(frozen=True)
class Row:
    """One file: KL from float in nats, and points of accuracy lost, on test images."""

    model: str
    recipe: str
    steps: str
    kl: float | None = None
    lost_points: float | None = None
    calibration_images: int | None = None
    test_images: int | None = None
    cpu: str = ""
    date: str = ""
    note: str = ""


RESULTS = Results("ablation", Row, key=("model", "recipe", "steps"))


def labels(images: Images) -> np.ndarray:
    """The class of each image."""
    return np.concatenate([np.asarray(part.labels) for part in images.batches(64)])


def measured(subject: Subject, name: str, steps: Sequence[str], truth: np.ndarray, reference: np.ndarray) -> Row:
    """Quantize with these steps and evaluate the file."""
    family, per, _ = RECIPES[name]
    recipe = parse_recipe(family, per=per)
    row = Row(
        subject.name,
        name,
        ", ".join(steps) or "none",
        calibration_images=subject.calibration.count,
        test_images=subject.test.count,
        **stamp(),
    )
    try:
        quantized = lowbit.quantize(subject.model, recipe, calibration=subject.calibration, steps=steps)
        logits = answers(quantized.to_bytes(), subject.model, subject.test, limit=subject.test.count)
    except LowbitError as error:
        return dataclasses.replace(row, note=f"not run: {error}")
    usual = quantized.plan.steps == lowbit.plan(subject.model, recipe).steps
    dropped = [step.name for step in quantized.steps if not step.kept]
    notes = [*["what lowbit does by itself"] * usual, *[f"{', '.join(dropped)} dropped"] * bool(dropped)]
    right, still = (np.mean(given.argmax(axis=1) == truth) for given in (reference, logits))
    return dataclasses.replace(
        row,
        kl=float(f"{mean_kl(reference, logits):.4g}"),
        lost_points=round(float(100 * (right - still)), 2),
        note="; ".join(notes),
    )


def markdown(rows: Sequence[Row], model: str | None = None) -> str:
    """One table per model."""
    parts: list[str] = []
    for name, own in by_model(rows, model).items():
        parts += [
            f"**{name}**: {own[0].calibration_images} calibration images, {own[0].test_images} test images; "
            f"{own[0].cpu}, {own[0].date}.\n",
            "| recipe | steps | KL | points lost | |",
            "|---|---|--:|--:|---|",
        ]
        for row in own:
            kl = "" if row.kl is None else f"{row.kl:#.2g}"
            parts.append(line((row.recipe, row.steps, kl, cell(row.lost_points, "+.2f"), escaped(row.note))))
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    parser = argument_parser(__doc__, models=MODELS, default=["resnet20"])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    arguments = parser.parse_args()
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        return
    test = 100 if arguments.quick else None
    for model in arguments.models:
        subject = open_subject(model, arguments.data, calibration=CALIBRATION, test=test)
        truth = labels(subject.test)
        reference = answers(subject.model.to_bytes(), subject.model, subject.test, limit=subject.test.count)
        for name in arguments.recipes:
            for steps in RECIPES[name][2]:
                row = measured(subject, name, steps, truth, reference)
                RESULTS.add([row], RESULTS.path(quick=arguments.quick))
                print(row, flush=True)


if __name__ == "__main__":
    main()

"""What each step between plan and codes contributes.

    python benchmarks/ablation.py --data ../shared/data [--models resnet20] [--recipes linear3]
    python benchmarks/ablation.py --table           # the table from results/ablation.csv

Each recipe is quantized with only some of its steps, and the file is evaluated on the calibration images that it was
fitted to, on those that judged its steps, and on test images that no step has seen: how many times as large the KL is
there as on the first is the gap. A row is written as soon as it is measured; notes mark the steps that a recipe takes
by default.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from machine import stamp
from rows import Results, argument_parser, by_model, cell, escaped, line
from subjects import DETECTOR, NETWORKS, Subject, open_subject, replies

import lowbit
from lowbit.calibration.divergence import mean_kl
from lowbit.data.images import Images
from lowbit.errors import LowbitError
from lowbit.quantization.passes.validation import fitting_and_judging
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
    """One file: KL from float in nats on images of three kinds, and points of accuracy lost on test images."""

    model: str
    recipe: str
    steps: str
    kl_fitted: float | None = None
    kl_judged: float | None = None
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


def measured(subject: Subject, name: str, steps: Sequence[str], references: Sequence[np.ndarray]) -> Row:
    """Quantize with these steps and evaluate the file.

    `references`: the float model's answers for the images that files are fitted to, those that judge, and test images.
    """
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
        content = quantized.to_bytes()
    except LowbitError as error:
        return dataclasses.replace(row, note=f"not run: {error}")
    usual = quantized.plan.steps == lowbit.plan(subject.model, recipe).steps
    dropped = [step.name for step in quantized.steps if not step.kept]
    notes = [*["what lowbit does by itself"] * usual, *[f"{', '.join(dropped)} dropped"] * bool(dropped)]
    parts = (*fitting_and_judging(subject.model, subject.calibration), subject.test)
    found = [replies(content, subject, part) for part in parts]
    fitted, judged, kl = (
        float(f"{mean_kl(reference, given):.4g}") for reference, given in zip(references, found, strict=True)
    )
    truth = labels(subject.test)
    right, still = (np.mean(given.argmax(axis=1) == truth) for given in (references[-1], found[-1]))
    return dataclasses.replace(
        row,
        kl_fitted=fitted,
        kl_judged=judged,
        kl=kl,
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
            "| recipe | steps | KL, fitted | KL, judged | KL, test | gap | points lost | |",
            "|---|---|--:|--:|--:|--:|--:|---|",
        ]
        for row in own:
            kls = [cell(value, "#.2g") for value in (row.kl_fitted, row.kl_judged, row.kl)]
            gap = row.kl / row.kl_fitted if row.kl and row.kl_fitted else None
            values = (*kls, cell(gap, ".1f"), cell(row.lost_points, "+.2f"))
            parts.append(line((row.recipe, row.steps, *values, escaped(row.note))))
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    parser = argument_parser(__doc__, models=[name for name in NETWORKS if name != DETECTOR], default=["resnet20"])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    arguments = parser.parse_args()
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        return
    test = 100 if arguments.quick else None
    for model in arguments.models:
        subject = open_subject(model, arguments.data, calibration=CALIBRATION, test=test)
        parts = (*fitting_and_judging(subject.model, subject.calibration), subject.test)
        references = [replies(subject.model.to_bytes(), subject, part) for part in parts]
        for name in arguments.recipes:
            for steps in RECIPES[name][2]:
                row = measured(subject, name, steps, references)
                RESULTS.add([row], RESULTS.path(quick=arguments.quick))
                print(row, flush=True)


if __name__ == "__main__":
    main()

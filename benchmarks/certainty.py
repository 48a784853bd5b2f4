"""Does a certified drop hold on images that had no part in it? Random splits of the evaluation images of real networks.

    python benchmarks/certainty.py [--models resnet20 efficientnet_lite0]   # makes the files once, into build/
    python benchmarks/certainty.py --table                        # the table from results/certainty.csv

A ladder of files is made once and predicted once on all images that none was calibrated on. For each of 20 splits one
half chooses the smallest file whose drop is within the limit, in one of three ways, and the other half says what that
file really loses there:

- `measured`: the smallest whose drop on the first half is within the limit, as tools do;
- `in order`: files are certified from the largest to the smallest, until one does not hold (`certify_in_order`);
- `any of them`: the smallest that is certified with a correction for all files looked at (`certify`, looks).
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import stamp
from rows import Results, argument_parser, cell, failed, heading, line
from subjects import PREPARED, Subject, missing, open_prepared, open_subject, replies, sources

import lowbit
from lowbit.certainty.certificate import certify, certify_in_order
from lowbit.certainty.paired import Paired, counted
from lowbit.data.images import Images
from lowbit.formats.onnx.write import to_onnx
from lowbit.measurement.accuracy import predicted_classes

MODELS = ("resnet20", "efficientnet_lite0")
CALIBRATION = {"resnet20": 200, "efficientnet_lite0": 64}
LADDER = {
    "resnet20": (
        "float16", "linear8", "int8", "linear6", "cluster6", "linear5", "cluster5", "int4", "linear4", "cluster4",
        "linear3", "cluster3", "linear2", "cluster2",
    ),
    "efficientnet_lite0": ("float16", "linear8", "int8", "linear6", "linear4"),
}  # fmt: skip
LIMITS = (0.005, 0.01)
SPLITS = 20
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """One way to choose, over all splits of a network's images."""

    model: str
    limit_points: float
    choice: str
    images: int | None = None  # in both halves
    files: int | None = None
    splits: int | None = None
    chosen: int | None = None  # splits in which a file was within the limit
    exceeded: int | None = None  # of these, in how many the other half lost more
    worst_points: float | None = None  # most lost by the other half
    smaller: float | None = None  # mean over splits of float's size over the chosen file's, 1 where none was chosen
    cpu: str = ""
    date: str = ""
    note: str = ""  # why there are no numbers


RESULTS = Results("certainty", Row, key=("model", "limit_points", "choice"))
COLUMNS = ("limit, points", "images", "files", "chosen", "exceeded", "worst, points", "smaller")


@dataclass(frozen=True)
class Step:
    """A file of the ladder: its bytes, and the classes that it predicts."""

    size: int
    classes: np.ndarray


# --- the files ------------------------------------------------------------------------------------------------------


def evaluation(name: str, subject: Subject, data: Path) -> tuple[Images, Images]:
    """All images of a network that it is not calibrated on: the test images, and the rest of those to calibrate on."""
    _, seen, _ = sources(name, data)
    known = PREPARED.get(name)
    spare = open_prepared(Path(seen), known) if known else lowbit.open_images(seen, subject.model.preprocessing)
    used = set(subject.calibration.source.places)
    left = [index for index, place in enumerate(spare.source.places) if place not in used]
    return subject.test, dataclasses.replace(spare, source=spare.source.select(left))


def ladder(name: str, data: Path) -> tuple[np.ndarray, list[Step]]:
    """The labels of all images, and the steps, float first; what was made before is read from build/."""
    subject = open_subject(name, data, calibration=CALIBRATION[name])
    parts = evaluation(name, subject, data)
    labels = np.concatenate([part.labels for part in parts])
    steps = []
    for recipe in ("float", *LADDER[name]):
        file = RESULTS.build / name / f"{recipe}.npz"
        if not file.exists():
            quantized = lowbit.quantize(subject.model, recipe, calibration=subject.calibration, effort="fast")
            file.parent.mkdir(parents=True, exist_ok=True)
            content = to_onnx(quantized.graph)
            outputs = np.concatenate([replies(content, subject, part) for part in parts])
            np.savez(file, size=len(content), classes=predicted_classes(outputs))
            print(f"{name} {recipe}: {len(content):,} bytes", flush=True)
        with np.load(file) as known:
            steps.append(Step(int(known["size"]), known["classes"]))
    return labels, steps


# --- choosing -------------------------------------------------------------------------------------------------------


def paired(labels: np.ndarray, before: Step, after: Step, images: np.ndarray) -> Paired:
    """What a file loses and gains on some of the images."""
    return counted(before.classes[images], after.classes[images], labels[images])


def measured(drops: Sequence[Paired], limit: float) -> int:
    """How far down the ladder the last file is whose measured drop is within the limit; -1 if there is none."""
    return max((index for index, drop in enumerate(drops) if drop.drop <= limit), default=-1)


def in_order(drops: Sequence[Paired], limit: float) -> int:
    """Likewise the last before the first that does not hold."""
    return sum(bool(each.holds) for each in certify_in_order(drops, limit, confidence=CONFIDENCE)) - 1


def any_of_them(drops: Sequence[Paired], limit: float) -> int:
    """Likewise the last that holds for all files looked at together."""
    held = [certify(drop, limit, confidence=CONFIDENCE, looks=len(drops)).holds for drop in drops]
    return max((index for index, holds in enumerate(held) if holds), default=-1)


CHOICES: dict[str, Callable[[Sequence[Paired], float], int]] = {
    "measured": measured,
    "in order": in_order,
    "any of them": any_of_them,
}


def rows_of(name: str, labels: np.ndarray, steps: Sequence[Step], splits: int) -> list[Row]:
    """Every limit and way to choose, over all splits."""
    reference, files = steps[0], sorted(steps[1:], key=lambda step: -step.size)
    halves = [np.array_split(np.random.default_rng(seed).permutation(len(labels)), 2) for seed in range(splits)]
    rows = []
    for limit in LIMITS:
        for choice, choose in CHOICES.items():
            lost, smaller = [], []
            for first, second in halves:
                place = choose([paired(labels, reference, file, first) for file in files], limit)
                smaller.append(reference.size / files[place].size if place >= 0 else 1.0)
                if place >= 0:
                    lost.append(paired(labels, reference, files[place], second).drop)
            rows.append(
                Row(
                    name, 100 * limit, choice, len(labels), len(files), splits, len(lost),
                    sum(drop > limit for drop in lost), 100 * max(lost) if lost else None,
                    float(np.mean(smaller)), **stamp(),
                )
            )  # fmt: skip
    return rows


def markdown(rows: Sequence[Row], _: str | None = None) -> str:
    """One line per network, limit and way to choose."""
    if not rows:
        return ""
    parts = heading(("network", "choice"), COLUMNS)
    for row in rows:
        if row.images is None:
            parts.append(failed((row.model, row.choice), row.note, len(COLUMNS)))
            continue
        numbers = (
            f"{row.limit_points:g}", f"{row.images:,}", str(row.files), f"{row.chosen} of {row.splits}",
            f"{row.exceeded} of {row.chosen}", cell(row.worst_points, "+.2f"), f"{cell(row.smaller, '.2f')}x",
        )  # fmt: skip
        parts.append(line((row.model, row.choice, *numbers)))
    return "\n".join([*parts, ""])


def main() -> None:
    parser = argument_parser(__doc__, models=MODELS, quick="two splits, into build/ instead of results/")
    arguments = parser.parse_args()
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        return
    for name in arguments.models:
        if reason := missing(name, arguments.data):
            print(reason)
            continue
        labels, steps = ladder(name, arguments.data)
        rows = rows_of(name, labels, steps, 2 if arguments.quick else SPLITS)
        RESULTS.add(rows, RESULTS.path(quick=arguments.quick))
        print(markdown(rows))
    if not arguments.quick:
        RESULTS.fill_readmes(markdown)


if __name__ == "__main__":
    main()

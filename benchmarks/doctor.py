"""Does `lowbit diagnose` find what was planted, by name, and nothing where nothing was?

    python benchmarks/doctor.py --data ../shared/data [--models resnet20] [--faults "one class"] [--seeds 10]
    python benchmarks/doctor.py --table           # the table from results/doctor.csv

Each seed draws the images, the place of the fault and its kind. A fault counts as found if a finding has its cause and,
where it has a place, names that layer or image. The same subject without the fault shows false alarms: findings of that
cause. Faults of data are looked for with `-r float`, which stops before layers; those of layers with int8. A row is
written as soon as it is measured; one that is there already is not measured again.
"""

import dataclasses
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from machine import stamp
from peer_tools import quantize_static
from planted import BROKEN_WEIGHTS, FAULTS, Planted, broken_weights, is_found
from rows import Results, argument_parser, by_model, escaped, line, position
from subjects import BUILT_IN, Subject, missing, open_subject

import lowbit
from lowbit.diagnosis.findings import Diagnosis

MODELS = (BUILT_IN, "resnet20", "mobilenet_v2_035")
OF_LAYERS = "outlier channel"
# images to calibrate on, and to evaluate on
IMAGES = {OF_LAYERS: (32, 64)}
USUAL = (100, 256)
SEEDS = 10


@dataclass(frozen=True)
class Row:
    """One fault in one network: whether it was found, and how many findings of its cause there were without it."""

    model: str
    fault: str
    seed: int
    found: int | None = None
    false_alarms: int | None = None
    named: str = ""
    seconds: float | None = None
    cpu: str = ""
    date: str = ""
    note: str = ""


def place(row: Row) -> tuple[int, int, int]:
    """Where a row stands."""
    return position(row.model, MODELS), position(row.fault, (*FAULTS, BROKEN_WEIGHTS)), row.seed


RESULTS = Results("doctor", Row, key=("model", "fault", "seed"), order=place)


@cache
def unharmed(subject: Subject, recipe: str) -> Diagnosis:
    """What is found where nothing was planted."""
    return lowbit.diagnose(subject.model, subject.test, recipe, calibration=subject.calibration)


@cache
def drawn(name: str, data: Path, seed: int, images: tuple[int, int]) -> Subject:
    """A network with the images that a seed draws."""
    subject = open_subject(name, data, calibration=images[0], seed=seed)
    return dataclasses.replace(subject, test=subject.test.subset(images[1], seed=seed))


def measured(name: str, seed: int, data: Path, *, fault: str) -> Row:
    """One planted fault."""
    row = Row(name, fault, seed, **stamp())
    generator = np.random.default_rng(seed)
    images = IMAGES.get(fault, USUAL)
    subject = drawn(name, data, seed, images)
    recipe = "int8" if fault == OF_LAYERS else "float"
    planted = FAULTS[fault](subject, generator)
    if planted is None:
        return dataclasses.replace(row, note="no layer of it can have such a channel")
    started = time.perf_counter()
    result = lowbit.diagnose(planted.model, planted.test, recipe, calibration=planted.calibration)
    row = dataclasses.replace(row, seconds=round(time.perf_counter() - started, 1))
    return judged(row, planted, result, unharmed(subject, recipe))


def judged(row: Row, planted: Planted, result: Diagnosis, without: Diagnosis) -> Row:
    """The row with what was found."""
    named = "; ".join(f"{one.cause}: {Path(one.where).name}" for one in result.findings)
    found = int(is_found(result.findings, planted))
    return dataclasses.replace(row, found=found, false_alarms=len(without.of(planted.cause)), named=named)


def measured_against(name: str, seed: int, data: Path) -> Row:
    """A layer broken in a file of ONNX Runtime's own tool."""
    row = Row(name, BROKEN_WEIGHTS, seed, **stamp())
    subject = drawn(name, data, 0, IMAGES[OF_LAYERS])
    path = other_file(subject)
    broken = path.with_name("broken.onnx")
    cause, node = broken_weights(path, broken, np.random.default_rng(seed))
    planted = Planted(cause, node, subject.model, subject.calibration, subject.test)
    started = time.perf_counter()
    result = lowbit.diagnose(subject.model, subject.test, against=broken)
    row = dataclasses.replace(row, seconds=round(time.perf_counter() - started, 1))
    without = healthy(subject, path)
    return judged(row, planted, result, without)


@cache
def healthy(subject: Subject, path: Path) -> Diagnosis:
    """What is found in the other tool's file as it was written."""
    return lowbit.diagnose(subject.model, subject.test, against=path)


@cache
def other_file(subject: Subject) -> Path:
    """The network as ONNX Runtime's tool quantizes it."""
    folder = RESULTS.build / subject.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    quantize_static(
        subject.model, subject.calibration, subject.path, folder / "other.onnx",
        quant_format="QDQ", activation_type="QUInt8", weight_type="QInt8", per_channel=True, calibrate_method="MinMax",
    )  # fmt: skip
    return folder / "other.onnx"


def markdown(rows: Sequence[Row], model: str | None = None) -> str:
    """One line per network and fault."""
    parts = ["| network | fault | found | false alarms | s | |", "|---|---|--:|--:|--:|---|"]
    for name, own in by_model(rows, model).items():
        for fault in dict.fromkeys(row.fault for row in own):
            some = [row for row in own if row.fault == fault]
            done = [row for row in some if row.found is not None]
            notes = escaped("; ".join(sorted({row.note for row in some if row.note})))
            if not done:
                parts.append(line((name, fault, "", "", "", notes)))
                continue
            seconds = [row.seconds for row in done if row.seconds is not None]
            found = f"{sum(row.found or 0 for row in done)} of {len(done)}"
            alarms = f"{sum(bool(row.false_alarms) for row in done)} of {len(done)}"
            parts.append(line((name, fault, found, alarms, f"{np.median(seconds):.0f}", notes)))
    made = ", ".join(dict.fromkeys(f"{row.cpu}, {row.date}" for row in rows))
    return "\n".join((*parts, "", f"{made}, busy with other work.", ""))


def main() -> None:
    parser = argument_parser(__doc__, models=MODELS, default=list(MODELS))
    parser.add_argument("--faults", nargs="+", choices=[*FAULTS, BROKEN_WEIGHTS], default=[*FAULTS, BROKEN_WEIGHTS])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        return
    path = RESULTS.path(quick=arguments.quick)
    for name in arguments.models:
        if sentence := missing(name, arguments.data):
            print(sentence, flush=True)
            continue
        for seed in range(1 if arguments.quick else arguments.seeds):
            known = {(row.model, row.fault, row.seed) for row in RESULTS.read(path)}
            for fault in arguments.faults:
                if (name, fault, seed) in known:
                    continue
                against = fault == BROKEN_WEIGHTS
                row = (measured_against if against else partial(measured, fault=fault))(name, seed, arguments.data)
                RESULTS.add([row], path)
                print(row, flush=True)


if __name__ == "__main__":
    main()

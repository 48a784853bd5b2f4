"""What each way of quantizing costs in accuracy: lowbit and its peers on the same models, images and measurements.

    python benchmarks/accuracy.py --data ../shared/data [--models resnet20 rps128 ...] [--tools lowbit nncf ...]
    python benchmarks/accuracy.py --seeds 0 1 2 # which images calibrate: see `accuracy_seeds.py`
    python benchmarks/accuracy.py --table       # fill the Markdown tables from the CSV and JSON files

Every tool gets the same float file and the same calibration images without labels, with its own defaults otherwise.
Everything is measured on the files as written, against the float file's predictions for test images that no tool has
seen. A row is written as soon as it is measured and replaces that of an earlier run; losing and failing rows stay.
"""

import argparse
import dataclasses
import importlib.metadata
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import accuracy_seeds
from accuracy_tools import BATCH, TOOLS, Candidate, candidates
from accuracy_tools import QUICK as QUICK_RECIPES
from peer_tools import why
from rows import HERE, ROOT, Results, argument_parser, by_model, cell, failed, heading, line, position
from subjects import DETECTOR, NETWORKS, Subject, missing, open_subject

from lowbit.formats.onnx.ledger import read_ledger
from lowbit.measurement.accuracy import score
from lowbit.measurement.environment import environment
from lowbit.measurement.prediction import Prediction, Runs, predict
from lowbit.quantization.solving.effort import EFFORTS

QUICK = (64, 256)  # calibration and test images
CALIBRATION = 250


@dataclass(frozen=True)
class Row:
    """One line of the CSV. Accuracy in percent, KL and loss in nats, `seconds` those of quantizing alone."""

    model: str
    tool: str
    recipe: str
    bits_per_weight: float | None = None
    file_bytes: int | None = None
    accuracy: float | None = None
    drop_points: float | None = None
    kl: float | None = None
    flips: int | None = None
    loss: float | None = None
    loss_ratio: float | None = None
    seconds: float | None = None
    note: str = ""


COLUMNS = ("bits per weight", "file, KB", "accuracy, %", "drop, points", "KL", "flips", "loss", "s")


# --- measuring ------------------------------------------------------------------------------------------------------


def measure(
    subject: Subject, candidate: Candidate, reference: Prediction, work: Path, seen: dict[tuple[str, bytes], str]
) -> Row:
    """Quantize, write, read again, predict, score; a tool that fails gets a row that says so.

    `seen` maps all logits so far to their recipe, so that an option that changed nothing is named as such.
    """
    tool, recipe = candidate.tool, candidate.recipe
    folder = work / re.sub(r"\W+", "-", f"{tool} {recipe}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    row = Row(subject.name, tool, recipe)
    try:
        made = candidate.make(subject, folder)
        if made.path is not None:
            ledger = read_ledger(made.path)
            made = dataclasses.replace(made, bits_per_weight=ledger.bits_per_weight, file_bytes=ledger.total)
            answers = predict(made.path, subject.test, runs=Runs(BATCH)).class_scores()
        elif made.logits is not None:
            answers = Prediction(made.logits, reference.labels)
        else:
            return dataclasses.replace(row, note=made.note)
    # Whatever a peer raises belongs in its row: the others still have to be measured.
    except Exception as error:
        return dataclasses.replace(row, note=f"failed: {why(error)}")
    same = seen.setdefault((tool, answers.logits.tobytes()), recipe)
    if same != recipe:
        made = dataclasses.replace(made, note="; ".join(filter(None, (made.note, f"same answers as '{same}'"))))
    quality = score(answers, reference=reference)
    float_score = score(reference)
    return dataclasses.replace(
        row,
        bits_per_weight=made.bits_per_weight,
        file_bytes=made.file_bytes,
        accuracy=100 * quality.accuracy,
        drop_points=100 * (float_score.accuracy - quality.accuracy),
        kl=quality.kl,
        flips=quality.flips,
        loss=quality.loss,
        loss_ratio=None if quality.loss is None else quality.loss / float_score.loss,
        seconds=made.seconds,
        note=made.note,
    )


def float_row(subject: Subject, reference: Prediction) -> Row:
    """The file that all others are compared with; its note says how the numbers were measured."""
    quality, ledger, machine = score(reference), read_ledger(subject.path), environment()
    peers = (line.strip() for line in (HERE / "requirements" / "nncf.txt").read_text().splitlines())
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("lowbit", "onnxruntime")]
    versions += [line.replace("==", " ") for line in peers if line.startswith(("nncf==", "openvino=="))]
    return Row(
        subject.name,
        "float",
        "float32",
        bits_per_weight=ledger.bits_per_weight,
        file_bytes=ledger.total,
        accuracy=100 * quality.accuracy,
        drop_points=0.0,
        kl=0.0,
        flips=0,
        loss=quality.loss,
        loss_ratio=1.0,
        note=f"{subject.calibration.count} calibration images, {subject.test.count} test images; "
        f"{machine.cpu}, {machine.cores} cores; {', '.join(versions)}",
    )


# --- tables ---------------------------------------------------------------------------------------------------------


def place(row: Row) -> tuple[int, int]:
    """Where a row stands in the table."""
    tools = [("float", "float32"), *((each.tool, each.recipe) for each in candidates())]
    return position(row.model, NETWORKS), position((row.tool, row.recipe), tools)


RESULTS = Results("accuracy", Row, key=("model", "tool", "recipe"), order=place)


def markdown(rows: Sequence[Row], model: str | None = None) -> str:
    """One table per model, with the conditions under its name; every row of the CSV, losing ones too."""
    parts = []
    for name, own in by_model(rows, model).items():
        conditions = next((row.note for row in own if row.tool == "float"), "")
        parts += [f"**{name}**: {conditions}.\n", *heading(["tool", "recipe"], COLUMNS), *map(_line, own), ""]
    return "\n".join(parts)


def _line(row: Row) -> str:
    if row.accuracy is None:
        return failed([row.tool, row.recipe], row.note, len(COLUMNS))
    same = re.search(r"same answers as '.*'", row.note)
    kl = cell(row.kl, ".1e" if not row.kl or row.kl < 1e-4 else ".1f" if row.kl >= 10 else "#.2g")
    changes = (cell(row.drop_points, "+.2f"), kl, cell(row.flips, "d"), f"x {cell(row.loss_ratio, '.3f')}")
    return line(
        (
            row.tool,
            f"{row.recipe} ({same[0]})" if same else row.recipe,
            cell(row.bits_per_weight, ".2f"),
            cell(None if row.file_bytes is None else row.file_bytes / 1000, ".0f"),
            cell(row.accuracy, ".2f"),
            *(changes if row.tool != "float" else ("", "", "", cell(row.loss, ".4f"))),
            cell(row.seconds, ".1f"),
        )
    )


def main() -> None:
    parser = argument_parser(__doc__, models=NETWORKS, quick="few images and rows, into build/ instead of results/")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--recipes", nargs="+", help="only rows of these recipes, as the table spells them")
    parser.add_argument("--calibration-images", type=int, help=f"at most so many; {CALIBRATION} by default")
    seeds = parser.add_argument_group("which images calibrate")
    seeds.add_argument(
        "--seeds", nargs="+", type=int, help="measure cells of these draws, such as 0 1 2, into a JSON file"
    )
    seeds.add_argument("--efforts", nargs="+", choices=EFFORTS, default=["balanced"], help="of lowbit, with --seeds")
    seeds.add_argument("--again", action="store_true", help="with --seeds, measure cells that are in the file already")
    seeds.add_argument(
        "--install-peers", action="store_true", help="with --seeds, make environments that are not there"
    )
    arguments = parser.parse_args()
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        accuracy_seeds.RESULTS.fill_readmes(accuracy_seeds.markdown)
        return
    logging.getLogger().setLevel(logging.ERROR)
    few, tests = QUICK if arguments.quick else (CALIBRATION, None)
    images = arguments.calibration_images or few
    if arguments.seeds is not None:
        measure_seeds(parser, arguments, images=images, tests=tests)
        return
    for name in arguments.models:
        if name == DETECTOR:
            print(f"{name} is skipped: without classes of images there is no accuracy; --seeds measures it.")
        elif sentence := missing(name, arguments.data):
            print(sentence)
        else:
            measure_network(open_subject(name, arguments.data, calibration=images, test=tests), arguments)
    print(f"rows are in {RESULTS.path(quick=arguments.quick).relative_to(ROOT)}")


def measure_seeds(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, *, images: int, tests: int | None
) -> None:
    """The cells of --seeds; with --quick, only some recipes unless they are named."""
    known = {candidate.recipe: None for candidate in candidates(accuracy_seeds.TOOLS)}
    if unknown := [recipe for recipe in arguments.recipes or () if recipe not in known]:
        parser.error(f"--seeds has no rows of '{unknown[0]}'; it has {', '.join(repr(recipe) for recipe in known)}")
    wanted = arguments.recipes or (QUICK_RECIPES if arguments.quick else known)
    tools = accuracy_seeds.available(arguments.tools, install=arguments.install_peers)
    chosen = [one for one in candidates(tools, arguments.efforts) if one.recipe in wanted]
    path = accuracy_seeds.RESULTS.path(quick=arguments.quick)
    asked = accuracy_seeds.Asked(arguments.data, chosen, arguments.seeds, images, tests, path, arguments.again)
    for name in arguments.models:
        accuracy_seeds.measure_network(name, asked)
    print(f"cells are in {path.relative_to(ROOT)}")


def measure_network(subject: Subject, arguments: argparse.Namespace) -> None:
    """The float row and those of all tools that are asked for."""
    path, name = RESULTS.path(quick=arguments.quick), subject.name
    reference = predict(subject.path, subject.test, runs=Runs(BATCH)).class_scores()
    wanted = arguments.recipes or (QUICK_RECIPES if arguments.quick else None)
    todo = [each for each in candidates(arguments.tools) if wanted is None or each.recipe in wanted]
    row = float_row(subject, reference)
    RESULTS.add([row], path)
    print(f"{name}: {row.accuracy:.2f} %, {row.note}", flush=True)
    seen: dict[tuple[str, bytes], str] = {}
    for index, candidate in enumerate(todo, 1):
        row = measure(subject, candidate, reference, RESULTS.build / name, seen)
        RESULTS.add([row], path)
        numbers = row.note if row.accuracy is None else f"{row.accuracy:.2f} %, KL {row.kl:.5f}, {row.seconds:.1f} s"
        print(f"{name} {index}/{len(todo)} {row.tool}, {row.recipe}: {numbers}", flush=True)


if __name__ == "__main__":
    main()

"""What each way of quantizing costs in accuracy: lowbit and its peers on the same models, images and measurements.

    python benchmarks/accuracy.py --data ../shared/data [--models resnet20 rps128 builtin] [--tools lowbit nncf ...]
    python benchmarks/accuracy.py --table       # fill the Markdown tables from the CSV

Every tool gets the same float file and the same calibration images without labels, with its own defaults otherwise.
Everything is measured on the files as written, against the float file's predictions for test images that no tool has
seen. A row is written as soon as it is measured and replaces that of an earlier run; losing and failing rows stay.
"""

import dataclasses
import importlib.metadata
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peer_tools import peer, quantize_static, run, why
from rows import HERE, ROOT, Results, argument_parser, by_model, cell, failed, heading, line, position
from subjects import MODELS, Subject, open_subject

import lowbit
from lowbit.files import write_atomically
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.write import to_onnx
from lowbit.measurement.accuracy import score
from lowbit.measurement.environment import environment
from lowbit.measurement.prediction import Prediction, predict
from lowbit.progress import SILENT
from lowbit.quantization.passes.candidate import plain_candidate

BATCH = 64
QUICK = (64, 256)  # calibration and test images

# (name, recipe, per); the order is that of the table
RECIPES = (
    ("int8", "int8", None),
    ("int8 per tensor", "int8", "tensor"),
    ("int4 (W4A8)", "int4", None),
    *((name, name, None) for name in ("linear4", "linear3", "linear2", "cluster4", "cluster3", "cluster2")),
    *((f"{name} per channel", name, "channel") for name in ("cluster4", "cluster3", "cluster2")),
)
ONNXRUNTIME = tuple(
    (f"{method.lower()}, per {per}{', int4 weights' if narrow else ''}", method, per == "channel", narrow)
    for method, per, narrow in (
        ("MinMax", "channel", False),
        ("Percentile", "channel", False),
        ("Entropy", "channel", False),
        ("MinMax", "tensor", False),
        ("Percentile", "tensor", False),
        ("Entropy", "tensor", False),
        ("MinMax", "channel", True),
    )
)
NNCF = tuple(
    (f"int8 {name}, {engine}", ("--backend", backend, *options))
    for backend, engine in (("openvino", "OpenVINO"), ("onnx", "ONNX"))
    for name, options in (
        ("default", ()),
        ("mixed preset", ("--mixed",)),
        ("accurate bias correction", ("--accurate",)),
        ("mixed, accurate bias correction", ("--mixed", "--accurate")),
    )
)
AIMET = (
    "not run: pip install --dry-run aimet-onnx (2.42.0) brings torch 2.15.0 with CUDA packages (14 nvidia-*, triton); "
    "not tried with a torch for CPUs"
)
TOOLS = ("float", "lowbit", "plain", "onnxruntime", "nncf", "aimet")


@dataclass(frozen=True)
class Made:
    """What a tool made of a model: a file, or its logits where they come from another engine."""

    seconds: float
    path: Path | None = None
    logits: np.ndarray | None = None
    bits_per_weight: float | None = None
    file_bytes: int | None = None
    note: str = ""


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


Candidate = tuple[str, str, Callable[[Subject, Path], Made]]
COLUMNS = ("bits per weight", "file, KB", "accuracy, %", "drop, points", "KL", "flips", "loss", "s")


def arrays(subject: Subject, folder: Path) -> tuple[Path, Path]:
    """The images as files of model inputs, for peers in environments of their own."""
    paths = []
    for name, images in (("calibration", subject.calibration), ("test", subject.test)):
        path = folder / f"{name}.npy"
        np.save(path, np.concatenate([batch.x for batch in images.batches(BATCH)]))
        paths.append(path)
    return paths[0], paths[1]


# --- tools ----------------------------------------------------------------------------------------------------------


def candidates(tools: Sequence[str], *, quick: bool) -> Iterator[Candidate]:
    """Everything that is compared, in the order of the table."""
    recipes = [row for row in RECIPES if not quick or row[0] in ("int8", "linear4", "cluster4")]
    if "lowbit" in tools:
        for name, recipe, per in recipes:
            yield "lowbit", name, lambda s, folder, r=recipe, p=per: by_lowbit(s, folder, r, p)
    if "plain" in tools:
        for name, recipe, per in recipes:
            tool = "plain k-means" if recipe.startswith("cluster") else "plain rounding"
            yield tool, name, lambda s, folder, r=recipe, p=per: plainly(s, folder, r, p)
    if "onnxruntime" in tools:
        for name, method, channel, narrow in ONNXRUNTIME[:1] if quick else ONNXRUNTIME:
            yield "ONNX Runtime", name, lambda s, f, m=method, c=channel, n=narrow: by_onnxruntime(s, f, m, c, n)
    if "nncf" in tools:
        for name, options in NNCF[:1] if quick else NNCF:
            yield "NNCF", name, lambda s, folder, o=options: by_nncf(s, folder, o)
    if "aimet" in tools:
        yield "AIMET", "AdaRound", lambda s, folder: Made(0.0, note=AIMET)


def by_lowbit(subject: Subject, folder: Path, name: str, per: str | None) -> Made:
    """lowbit as a user calls it."""
    started = time.perf_counter()
    quantized = lowbit.quantize(
        subject.model, lowbit.parse_recipe(name, per=per), calibration=subject.calibration, effort="balanced"
    )
    path = quantized.save(folder / "model.onnx")
    seconds = time.perf_counter() - started
    kept = ", ".join(f"{step.name} {'kept' if step.kept else 'dropped'}" for step in quantized.steps)
    return Made(seconds, path, note=kept)


def plainly(subject: Subject, folder: Path, name: str, per: str | None) -> Made:
    """The same recipe by its weights alone, or k-means without any more; ranges of activations are their extremes."""
    started = time.perf_counter()
    integer = lowbit.parse_recipe(name).integer
    recipe = lowbit.parse_recipe(name, per=per, ranges="minmax" if integer else None)
    if not integer:
        path = lowbit.quantize(subject.model, recipe).save(folder / "model.onnx")
        return Made(time.perf_counter() - started, path)
    decided = dataclasses.replace(lowbit.plan(subject.model, recipe), steps=())
    candidate = plain_candidate(subject.model, decided, subject.calibration, 0, SILENT)
    path = write_atomically(folder / "model.onnx", to_onnx(candidate.graph))
    return Made(time.perf_counter() - started, path, note="min-max ranges")


def by_onnxruntime(subject: Subject, folder: Path, method: str, per_channel: bool, narrow: bool) -> Made:
    """ONNX Runtime's static quantization: QDQ, uint8 activations, int8 weights."""
    started = time.perf_counter()
    quantize_static(
        subject.model, subject.calibration, subject.path, folder / "model.onnx",
        quant_format="QDQ", activation_type="QUInt8", weight_type="QInt4" if narrow else "QInt8",
        per_channel=per_channel, calibrate_method=method,
    )  # fmt: skip
    return Made(time.perf_counter() - started, folder / "model.onnx")


def by_nncf(subject: Subject, folder: Path, options: Sequence[str]) -> Made:
    """NNCF in its own environment; files of its OpenVINO backend answer there."""
    python = peer("nncf")
    images = arrays(subject, folder)
    command = [python, HERE / "peers" / "nncf_int8.py", subject.path, *images, folder, *options]
    run([*command, "--images", str(subject.calibration.count)])
    for path in images:
        path.unlink()
    result = json.loads((folder / "result.json").read_text())
    if (folder / "logits.npy").exists():
        return Made(
            result["seconds"],
            logits=np.load(folder / "logits.npy"),
            bits_per_weight=result["bits_per_weight"],
            file_bytes=result["file_bytes"],
            note="measured in OpenVINO",
        )
    return Made(result["seconds"], folder / "model.onnx")


# --- measuring ------------------------------------------------------------------------------------------------------


def measure(
    subject: Subject, candidate: Candidate, reference: Prediction, work: Path, seen: dict[tuple[str, bytes], str]
) -> Row:
    """Quantize, write, read again, predict, score; a tool that fails gets a row that says so.

    `seen` maps all logits so far to their recipe, so that an option that changed nothing is named as such.
    """
    tool, recipe, make = candidate
    folder = work / re.sub(r"\W+", "-", f"{tool} {recipe}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    row = Row(subject.name, tool, recipe)
    try:
        made = make(subject, folder)
        if made.path is not None:
            ledger = read_ledger(made.path)
            made = dataclasses.replace(made, bits_per_weight=ledger.bits_per_weight, file_bytes=ledger.total)
            answers = predict(made.path, subject.test, batch=BATCH)
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
    tools = [("float", "float32"), *((tool, recipe) for tool, recipe, _ in candidates(TOOLS, quick=False))]
    return position(row.model, MODELS), position((row.tool, row.recipe), tools)


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
    parser = argument_parser(__doc__, models=MODELS, quick="few images and rows, into build/ instead of results/")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--recipes", nargs="+", help="only rows of these recipes, as the table spells them")
    parser.add_argument("--calibration-images", type=int, default=250)
    arguments = parser.parse_args()
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        return
    logging.getLogger().setLevel(logging.ERROR)
    path = RESULTS.path(quick=arguments.quick)
    calibration, test = QUICK if arguments.quick else (arguments.calibration_images, None)
    for name in arguments.models:
        subject = open_subject(name, arguments.data, calibration=calibration, test=test)
        reference = predict(subject.path, subject.test, batch=BATCH)
        todo = [
            candidate
            for candidate in candidates(arguments.tools, quick=arguments.quick)
            if arguments.recipes is None or candidate[1] in arguments.recipes
        ]
        row = float_row(subject, reference)
        RESULTS.add([row], path)
        print(f"{name}: {row.accuracy:.2f} %, {row.note}", flush=True)
        seen: dict[tuple[str, bytes], str] = {}
        for index, candidate in enumerate(todo, 1):
            row = measure(subject, candidate, reference, RESULTS.build / name, seen)
            RESULTS.add([row], path)
            numbers = (
                row.note if row.accuracy is None else f"{row.accuracy:.2f} %, KL {row.kl:.5f}, {row.seconds:.1f} s"
            )
            print(f"{name} {index}/{len(todo)} {row.tool}, {row.recipe}: {numbers}", flush=True)
    print(f"rows are in {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

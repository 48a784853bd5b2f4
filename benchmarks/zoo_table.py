"""Every recipe on every kind of network: does it run, where, how close is it, how small.

    python benchmarks/zoo_table.py [--networks resnet bert ...] [--recipes int8 linear4 ...]
    python benchmarks/zoo_table.py --table        # write docs/zoo.md from the CSV

The networks are those of `tests/zoo`, built in code and exported by torch (`requirements/train.txt`, with the extras
`openvino` and `litert`). Their weights are random: what is compared is what rounding does to them, not what they know.
Beside int8 stands `onnxruntime.quantization.quantize_static` on the same file and samples. Rows that fail say why.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peer_tools import why
from rows import ROOT, Results, cell, escaped, heading, line

import lowbit
from lowbit.engines import installed_engines
from lowbit.engines.session import ENGINES
from lowbit.errors import LowbitError
from lowbit.files import write_atomically

sys.path.insert(0, str(ROOT / "tests"))

from zoo.trial import CALIBRATION, EVALUATION, answers, quantize_static, quantized, sqnrs, written

RECIPES = ("float", "int8", "int4", "linear8", "linear4", "linear2", "cluster4")
IN_LITERT = ("float", "int8", "linear8")  # its files hold weights of 8 bits
OTHER_ANSWERS = 3.0  # decibels behind ONNX Runtime on the same codes, from which an engine's answers are a fault
SAMPLES = 128, 64  # that calibrate, and that evaluate
PAGE = ROOT / "docs" / "zoo.md"
BEHIND = 1.0  # decibels behind the peer, from which a line of the page says so


@dataclass(frozen=True)
class Row:
    """One recipe on one network: the SQNR of its worst output in each engine, in decibels.

    `output` names that output (in ONNX Runtime), `peer` is what `quantize_static` has on its own worst one, and `note`
    says what failed.
    """

    model: str
    recipe: str
    file_bytes: int | None = None
    integer_share: float | None = None
    onnxruntime: float | None = None
    openvino: float | None = None
    litert: float | None = None
    peer: float | None = None
    output: str = ""
    note: str = ""


RESULTS = Results("zoo", Row, key=("model", "recipe"), order=lambda row: (place(row.model), RECIPES.index(row.recipe)))


def place(model: str) -> int:
    """Networks in the order of the zoo; without torch, which builds it, in that of the CSV."""
    try:
        from zoo.table import ZOO
    except ImportError:
        return 0
    return list(ZOO).index(model) if model in ZOO else len(ZOO)


def measure(name: str, recipes: Sequence[str], folder: Path) -> list[Row]:
    """All rows of one network."""
    from zoo.table import ZOO, export

    path, network = export(name, folder), ZOO[name]
    many, few = (
        network.feeds(count, seed=seed) for count, seed in zip(SAMPLES, (CALIBRATION, EVALUATION), strict=True)
    )
    reference = answers(path, few)
    rows = []
    for recipe in recipes:
        row = Row(name, recipe)
        try:
            row = measured(row, lowbit.load(path), many, few, reference)
        except Exception as error:  # belongs in its row: the others still have to be measured
            row = dataclasses.replace(row, note=reason(error))
        if recipe == "int8":
            row = beside_peer(row, path, many, few, reference, folder)
        rows.append(row)
        print(row, flush=True)
    return rows


def measured(row: Row, model: lowbit.Model, many: Any, few: Any, reference: Any) -> Row:
    """A row with what each engine makes of the file."""
    made = quantized(model, row.recipe, many, effort="balanced")
    # Float16 networks become float32, inputs included.
    few = {name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in few.items()}
    values: dict[str, Any] = {"integer_share": integer_share(made, few)} if made.plan.integer else {}
    notes = []
    for engine in installed_engines():
        if engine == "litert" and row.recipe not in IN_LITERT:
            continue
        try:
            content = written(made, engine)
            found = sqnrs(reference, answers(content, few, engine))
        except Exception as error:  # likewise
            notes.append(f"{ENGINES[engine].label}: {reason(error)}")
            continue
        values[engine] = min(found.values())
        if values[engine] < values.get("onnxruntime", 0.0) - OTHER_ANSWERS:
            notes.append(f"{ENGINES[engine].label}: computes something else ({values[engine]:.0f} dB)")
        if engine == "onnxruntime":
            values |= {"file_bytes": len(content), "output": min(found, key=lambda name: found[name])}
    return dataclasses.replace(row, note="; ".join(notes), **values)


def reason(error: Exception) -> str:
    """What a refusal says, without what differs from recipe to recipe; of anything else also its kind."""
    return error.what if isinstance(error, LowbitError) else f"{type(error).__name__}: {why(error)}"


def integer_share(made: Any, feeds: Any) -> float | None:
    """Share of the multiplications with weights that are done in integers; None where it is not known."""
    in_integers = {node.node for node in made.plan.nodes if node.arithmetic == "integer"}
    try:
        costs = lowbit.cost(made.model, shapes={name: x[:1].shape for name, x in feeds.items()}).layers
    except LowbitError:
        return None
    return sum(layer.macs for layer in costs if layer.node in in_integers) / sum(layer.macs for layer in costs)


def beside_peer(row: Row, path: Path, many: Any, few: Any, reference: Any, folder: Path) -> Row:
    try:
        file = quantize_static(path, many, folder / f"{row.model}-peer.onnx")
        return dataclasses.replace(row, peer=min(sqnrs(reference, answers(file, few)).values()))
    except Exception as error:
        note = f"quantize_static: {why(error)}"
        return dataclasses.replace(row, note="; ".join(filter(None, (row.note, note))))


def page(rows: Sequence[Row]) -> str:
    """docs/zoo.md."""
    by_model: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, {})[row.recipe] = row
    numbers = ("int8, dB", "quantize_static, dB", "integer MACs, %")
    numbers += tuple(f"{recipe}, kB" for recipe in ("float", "int8", "linear4", "cluster4"))
    lines = [*INTRODUCTION, *heading(["network"], numbers)]
    lines += [summary(name, own) for name, own in by_model.items()]
    lines += ["", *DISTANCES, *heading(["network"], [f"{recipe}, dB" for recipe in RECIPES])]
    lines += [
        line((name, *(cell(own[recipe].onnxruntime, ".1f") if recipe in own else "" for recipe in RECIPES)))
        for name, own in by_model.items()
    ]
    lines += ["", "## What does not run", ""]
    lines += [f"- {text}" for name, own in by_model.items() for text in refusals(name, own)]
    return "\n".join(lines) + "\n"


INTRODUCTION = (
    "# The zoo",
    "",
    "Every kind of network in small (`tests/zoo`), with random weights, exported by torch and quantized with 128"
    " samples; measured on 64 others by `benchmarks/zoo_table.py`, which also writes this page. A number is the SQNR of"
    " the worst output: what varies from sample to sample over the error, in decibels. `quantize_static` is ONNX"
    " Runtime's own tool on the same file and samples (QDQ, per channel, minimum and maximum); its number is bold where"
    " int8 is more than 1 dB behind. Where a number is missing, the reason stands below.",
    "",
)
DISTANCES = ("## Every recipe in ONNX Runtime", "")


def summary(name: str, own: dict[str, Row]) -> str:
    int8 = own.get("int8", Row(name, "int8"))
    peer = cell(int8.peer, ".1f")
    if int8.peer is not None and (int8.onnxruntime is None or int8.onnxruntime < int8.peer - BEHIND):
        peer = f"**{peer}**"
    sizes = [own[recipe].file_bytes if recipe in own else None for recipe in ("float", "int8", "linear4", "cluster4")]
    share = None if int8.integer_share is None else 100 * int8.integer_share
    kilobytes = [cell(None if size is None else size / 1000, ".1f") for size in sizes]
    return line((name, cell(int8.onnxruntime, ".1f"), peer, cell(share, ".0f"), *kilobytes))


def refusals(name: str, own: dict[str, Row]) -> list[str]:
    """One line for each reason, with the recipes that it holds for."""
    reasons: dict[str, list[str]] = {}
    for row in own.values():
        for note in filter(None, row.note.split("; ")):
            reasons.setdefault(note, []).append(row.recipe)
    return [
        f"{name}, {'every recipe' if len(recipes) == len(own) else ', '.join(recipes)}: {escaped(note)}"
        for note, recipes in reasons.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", help="networks of the zoo; all by default")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--csv", type=Path, default=RESULTS.csv, help="where rows are kept")
    parser.add_argument("--table", action="store_true", help="only write docs/zoo.md from the CSV")
    arguments = parser.parse_args()
    if not arguments.table:
        from zoo.table import ZOO

        logging.disable(logging.WARNING)
        RESULTS.build.mkdir(parents=True, exist_ok=True)
        for name in arguments.networks or ZOO:
            RESULTS.add(measure(name, arguments.recipes, RESULTS.build), arguments.csv)
    if arguments.csv == RESULTS.csv:
        write_atomically(PAGE, page(RESULTS.read()).encode())


if __name__ == "__main__":
    main()

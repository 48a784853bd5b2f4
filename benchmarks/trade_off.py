"""Size, speed and divergence of every recipe in one table, peers' files among them: who is dominated by whom.

    python benchmarks/trade_off.py --data ../shared/data [--models builtin mobilenet_v2_035] [--engines onnxruntime]
    python benchmarks/trade_off.py --quick      # a few recipes into build/, to see that everything runs
    python benchmarks/trade_off.py --table      # fill the Markdown tables from the CSV

Files are made as `accuracy.py` makes them, from the same images; KL is that of test images that no tool has seen. All
files of an engine are timed in one process, in turn, and a time is the median of the ratios to the float file within
rounds. A file is dominated by another that is no larger, no slower and no farther from float, and better in one of
these by more than `CLEAR`. What no file dominates is the Pareto front.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from accuracy_tools import Candidate, by_lowbit, candidates
from machine import ForeignLoad, stamp
from peer_tools import why
from rows import Results, add_steps, argument_parser, by_model, cell, escaped, failed, heading, line, position
from subjects import NETWORKS, Subject, missing, open_subject, replies

import lowbit
from lowbit.calibration.divergence import mean_kl
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.speed import Latency, latency

CALIBRATION = 250
RUNS = 20, 1000  # rounds, however much time there is
MODELS = ("rps128", "mobilenet_v2_035")
ENGINES = ("onnxruntime", "openvino")
TOOLS = ("lowbit", "onnxruntime", "onnxconverter", "nncf")
FILES = ("model.onnx", "model.xml")
# Beside the rows of `accuracy.py`: lowbit's other recipes.
OTHERS = ("int7", "int6", "int5", "int3", "int2", *(f"icluster{bits}" for bits in range(1, 8)), "linear16", "linear6")
QUICK = ("int8", "int4 (W4A8)", "linear4", "icluster2", "minmax, per channel")
CLEAR = 0.02  # smaller differences of bytes, times and KL are those of another run
FLOAT = "float32"


@dataclass(frozen=True)
class Row:
    """One file in one engine: KL from float in nats, time as a share of float's in the same engine."""

    model: str
    engine: str
    tool: str
    recipe: str
    file_bytes: int | None = None
    kl: float | None = None
    time_of_float: float | None = None
    time_spread: float | None = None  # quartiles of the time over its median
    dominated_by: str = ""
    foreign_load: float | None = None
    cpu: str = ""
    date: str = ""
    version: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.tool} {self.recipe}"


def place(row: Row) -> tuple[int, str, float]:
    """Networks, engines, then the smallest file first."""
    return position(row.model, NETWORKS), row.engine, row.file_bytes or 0


RESULTS = Results("trade_off", Row, key=("model", "engine", "tool", "recipe"), order=place)


def every_candidate(tools: Sequence[str]) -> list[Candidate]:
    """Those of `accuracy.py`, and lowbit's other recipes."""
    found = [one for one in candidates(tools) if "same bits" not in one.recipe]
    if "lowbit" in tools:
        others = {name: lowbit.parse_recipe(name) for name in OTHERS}
        makers = {name: partial(by_lowbit, recipe=recipe, effort="balanced") for name, recipe in others.items()}
        found += [Candidate("lowbit", name, "balanced", make) for name, make in makers.items()]
    return found


@dataclass(frozen=True)
class Files:
    """A folder of files, and the rows of those that were made, still without times."""

    folder: Path

    @property
    def rows(self) -> Path:
        return self.folder / "made.csv"

    def place(self, row: Row) -> Path:
        return self.folder / row.model / re.sub(r"\W+", "-", row.name)

    def file(self, row: Row) -> Path | None:
        """The file of a row if it was made: ONNX, or OpenVINO's own form."""
        return next((path for name in FILES if (path := self.place(row) / name).exists()), None)


def made(subject: Subject, one: Candidate, reference: np.ndarray, files: Files) -> Row:
    """The row of a tool's file, without times; one that fails, or gives none, says so. A file that is there stays."""
    row = Row(subject.name, "", one.tool, one.recipe, version=lowbit.__version__, **stamp())
    folder = files.place(row)
    try:
        if files.file(row) is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            one.make(subject, folder)
        path = files.file(row)
        if path is None:
            return replace(row, note="no file that is timed here")
        if path.suffix == ".onnx":
            size, answers = read_ledger(path).total, replies(path.read_bytes(), subject, subject.test)
        else:
            size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
            answers = np.load(folder / "logits.npy").reshape(len(reference), -1)
    # Whatever a peer raises belongs in its row: the others still have to be measured.
    except Exception as error:
        return replace(row, note=f"failed: {why(error)}")
    if not np.isfinite(answers).all():
        return replace(row, note="failed: its answers are not finite")
    return replace(row, file_bytes=size, kl=float(mean_kl(reference, answers)))


def make_files(subject: Subject, chosen: Sequence[Candidate], files: Files) -> None:
    """All files of a network that are not there yet; each row, still without times, is written at once."""
    reference = replies(subject.path.read_bytes(), subject, subject.test)
    known = {row.name for row in RESULTS.read(files.rows) if row.model == subject.name and files.file(row)}
    start = Row(subject.name, "", "float", FLOAT, read_ledger(subject.path).total, 0.0, **stamp())
    RESULTS.add([start], files.rows)
    for index, one in enumerate(chosen, 1):
        if f"{one.tool} {one.recipe}" in known:
            continue
        row = made(subject, one, reference, files)
        RESULTS.add([row], files.rows)
        figures = row.note if row.kl is None else f"{row.file_bytes:,} bytes, KL {row.kl:.5f}"
        print(f"{subject.name} {index}/{len(chosen)} {row.name}: {figures}", flush=True)


def time_files(
    subject: Subject, chosen: Sequence[Candidate], engines: Sequence[str], seconds: float, files: Files
) -> Iterator[list[Row]]:
    """The rows of the files that are there, with their times, engine by engine."""
    names = {f"{one.tool} {one.recipe}" for one in chosen} | {f"float {FLOAT}"}
    rows = [row for row in RESULTS.read(files.rows) if row.model == subject.name and row.name in names]
    rows.sort(key=lambda row: row.tool != "float")  # ratios are those to the first
    paths = [(row, subject.path if row.tool == "float" else files.file(row)) for row in rows]
    x = next(iter(subject.test.batches(1))).x
    for engine in engines:
        yield with_dominators(timed(paths, engine, x, seconds))


def timed(files: Sequence[tuple[Row, Path | None]], engine: str, x: np.ndarray, seconds: float) -> list[Row]:
    """Times of all files that an engine opens, in as many rounds as `seconds` have room for."""
    opened = {row.name: path for row, path in files if path is not None}
    refused: dict[str, str] = {}
    round_ms = 0.0
    for name, path in tuple(opened.items()):
        try:
            once = latency({name: path}, x, Conditions(engine=engine, runs=3), warmup=1)
            round_ms += once[name].median_ms
        except Exception as error:
            refused[name] = f"not run: {why(error)}"
            del opened[name]
    runs = int(np.clip(1e3 * seconds / max(round_ms, 1e-3), *RUNS))
    load = ForeignLoad()
    times: dict[str, Latency] = latency(opened, x, Conditions(engine=engine, runs=runs)) if opened else {}
    busy = load.mean(sum(time.median_ms * time.cpu_share * runs for time in times.values()) / 1e3)
    rows = []
    for row, _ in files:
        row = replace(row, engine=engine, foreign_load=busy, note=refused.get(row.name, row.note), **stamp())
        if row.name in times:
            time = times[row.name]
            spread = (time.high_ms - time.low_ms) / time.median_ms
            row = replace(row, time_of_float=1 / time.ratio, time_spread=spread)
        rows.append(row)
    return rows


def with_dominators(rows: Sequence[Row]) -> list[Row]:
    """Each row of an engine with the smallest file that dominates it."""
    known = sorted((row for row in rows if row.time_of_float is not None), key=lambda row: row.file_bytes or 0)
    return [
        replace(row, dominated_by=next((other.name for other in known if dominates(other, row)), ""))
        if row in known
        else row
        for row in rows
    ]


def dominates(one: Row, other: Row) -> bool:
    """Whether a file is as good in all, and clearly better in one."""
    pairs = [
        (float(one.file_bytes or 0), float(other.file_bytes or 0)),
        (one.time_of_float or 0.0, other.time_of_float or 0.0),
        ((one.kl or 0.0) + 1e-6, (other.kl or 0.0) + 1e-6),
    ]
    return one.name != other.name and all(a <= b for a, b in pairs) and any(a < b * (1 - CLEAR) for a, b in pairs)


COLUMNS = ("file, KB", "smaller", "KL", "time of float's", "spread")


def markdown(rows: Sequence[Row], model: str | None = None) -> str:
    """One table for each network and engine, the smallest file first; the front in bold."""
    parts = []
    for name, of_model in by_model(rows, model).items():
        for engine in dict.fromkeys(row.engine for row in of_model):
            own = [row for row in of_model if row.engine == engine]
            start = next((row.file_bytes for row in own if row.recipe == FLOAT), None)
            load = max((row.foreign_load or 0.0 for row in own), default=0.0)
            where = f"{own[0].cpu}, {own[0].date}; other programs kept {load:.1f} processors busy"
            parts += [f"**{name}, {engine}**: one sample, one thread; {where}.\n"]
            parts += heading(["tool", "recipe", "dominated by"], COLUMNS)
            parts += [_line(row, start) for row in own]
            parts.append("")
    return "\n".join(parts)


def _line(row: Row, start: int | None) -> str:
    if row.time_of_float is None:
        return failed([row.tool, escaped(row.recipe)], row.note, len(COLUMNS) + 1)
    recipe = escaped(row.recipe)
    kl = row.kl or 0.0
    return line(
        (
            row.tool,
            recipe if row.dominated_by else f"**{recipe}**",
            escaped(row.dominated_by),
            cell((row.file_bytes or 0) / 1000, ".0f"),
            cell((start or 0) / (row.file_bytes or 1), ".2f"),
            "0" if kl == 0 else cell(kl, ".1e" if kl < 1e-4 else "#.2g"),
            cell(row.time_of_float, ".2f"),
            cell(row.time_spread, ".2f"),
        )
    )


def main() -> None:
    parser = argument_parser(__doc__, models=NETWORKS, default=MODELS)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--recipes", nargs="+", help="only these, as the table spells them")
    parser.add_argument("--seconds", type=float, default=120.0, help="of timing, for each network and engine")
    add_steps(parser)
    arguments = parser.parse_args()
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        return
    images, tests = (32, 64) if arguments.quick else (CALIBRATION, None)
    seconds = 1.0 if arguments.quick else arguments.seconds
    wanted = arguments.recipes or (QUICK if arguments.quick else None)
    chosen = [one for one in every_candidate(arguments.tools) if wanted is None or one.recipe in wanted]
    files = Files(RESULTS.build / "quick" if arguments.quick else RESULTS.build)
    for name in arguments.models:
        if sentence := missing(name, arguments.data):
            print(sentence)
            continue
        subject = open_subject(name, arguments.data, calibration=images, test=tests)
        if not arguments.only_time:
            make_files(subject, chosen, files)
        if not arguments.only_make:
            for rows in time_files(subject, chosen, arguments.engines, seconds, files):
                RESULTS.add(rows, RESULTS.path(quick=arguments.quick))


if __name__ == "__main__":
    main()

"""How long one inference takes: the files of lowbit and its peers, each in its runtime, taking turns.

    python benchmarks/latency.py --data ../shared/data [--models rps128 resnet20] [--batches 1 32] [--threads 1 2]
    python benchmarks/latency.py --quick        # a few rounds into build/, to see that everything runs
    python benchmarks/latency.py --table        # tables and plots from the CSV

All tools get the same float network and the same calibration images (`latency_files.py` makes the files). Every
candidate is a process of its own, so that peers keep their environments; in each round every candidate has one turn, in
an order drawn anew, and ratios are taken within rounds. So a machine that slows down slows all of them, and no
candidate always follows the same one, whose threads may still be spinning. A turn is a few calls back to back, as in a
program that has images waiting. The first call finds caches filled by two dozen others, and sleeping threads; it is a
column of its own (`cold_ms`), and the time is the median of the others. The processes are restarted several times,
since where a process lies in memory changes its times by some percent. Rows say how many processors other programs kept
busy meanwhile. A setting (model, batch size, threads) is written at once and replaces its earlier rows. Losing and
failed rows stay.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from latency_files import FLOAT, TOOLS, Candidate, make_files
from machine import stamp
from plot import Bar, bars
from rows import Results, argument_parser, by_model, cell, escaped, heading, line
from subjects import FOLDERS, open_subject
from turns import Turns, gathered

from lowbit.files import write_atomically

CALIBRATION = 128
ROUNDS = {1: 160, 32: 40}
CALLS = {1: 10, 32: 3}  # a turn, the first included
STARTS = 4
BYTES, NORMALIZED = "lowbit int8, bytes in", "lowbit int8, normalized in numpy"
CODES = "lowbit int8, int8 in and out"  # as the files of LiteRT's own tools


@dataclass(frozen=True)
class Row:
    """One candidate in one setting; ratios are medians of ratios within rounds, of first calls where they say cold."""

    model: str
    batch: int
    threads: int
    engine: str
    tool: str
    median_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    cold_ms: float | None = None
    faster_than_float: float | None = None  # than float in ONNX Runtime
    of_best_peer: float | None = None  # lowbit's int8: time as a share of the best peer's int8 in the same engine
    cold_of_best_peer: float | None = None
    best_peer: str = ""
    faster_than_normalized: float | None = None  # bytes in: than the file with float input and its normalization
    rounds: int | None = None
    foreign_load: float | None = None  # processors that other programs kept busy
    version: str = ""
    cpu: str = ""
    date: str = ""
    note: str = ""


RESULTS = Results("latency", Row, key=("model", "batch", "threads", "engine", "tool"))


def measure(setting: tuple[str, int, int], candidates: Sequence[Candidate], rounds: int, starts: int) -> list[Row]:
    """All candidates in one setting: model, batch size and threads."""
    model, batch, threads = setting
    found = gathered(candidates, Turns(batch, threads, CALLS.get(batch, 5), rounds, starts), RESULTS.build)
    base = [
        Row(model, batch, threads, one.engine, one.tool, version=version, note=note, **stamp())
        for one, version, note in zip(candidates, found.versions, found.notes, strict=True)
    ]
    return summarized(base, found.cold, found.warm, found.foreign)


def summarized(base: Sequence[Row], cold: np.ndarray, wall: np.ndarray, foreign: float | None) -> list[Row]:
    """Rows from nanoseconds [rounds, candidates] of first and other calls; NaN where a candidate did not run."""
    ran = [i for i in range(len(base)) if not np.isnan(wall[:, i]).any()]
    median = {i: float(np.median(wall[:, i])) for i in ran}
    rows = list(base)

    def place(engine: str, tool: str) -> int | None:
        return next((i for i in ran if (base[i].engine, base[i].tool) == (engine, tool)), None)

    def ratio(a: int | None, b: int | None, of: np.ndarray = wall) -> float | None:
        return None if a is None or b is None else round(float(np.median(of[:, a] / of[:, b])), 3)

    for i in ran:
        engine, tool = base[i].engine, base[i].tool
        peers = [j for j in ran if base[j].engine == engine and kind(base[j]) == "peer"]
        best = min(peers, key=lambda j: median[j], default=None) if tool in ("lowbit int8", CODES) else None
        low, _, high = np.percentile(wall[:, i] / 1e6, (25, 50, 75))
        rows[i] = dataclasses.replace(
            base[i],
            median_ms=round(median[i] / 1e6, 4),
            low_ms=round(float(low), 4),
            high_ms=round(float(high), 4),
            cold_ms=round(float(np.median(cold[:, i]) / 1e6), 4),
            faster_than_float=ratio(place("onnxruntime", FLOAT), i),
            of_best_peer=ratio(i, best),
            cold_of_best_peer=ratio(i, best, cold),
            best_peer="" if best is None else base[best].tool,
            faster_than_normalized=ratio(place(engine, NORMALIZED), i) if tool == BYTES else None,
            rounds=len(wall),
            foreign_load=None if foreign is None else round(foreign, 2),
        )
    return rows


def kind(row: Row) -> str:
    """Whose row it is, and what it may be compared with."""
    return "lowbit" if row.tool.startswith("lowbit") else "float" if row.tool.startswith(FLOAT) else "peer"


# --- tables and plots -----------------------------------------------------------------------------------------------


def markdown(rows: Sequence[Row], model: str | None = None) -> str:
    """One table per model: a line per file, a column per setting, times in ms and how much faster than float."""
    parts: list[str] = []
    for name, own in by_model(rows, model).items():
        settings = sorted({(row.batch, row.threads) for row in own})
        loads = [row.foreign_load for row in own if row.foreign_load is not None]
        versions = dict.fromkeys(f"{row.engine} {row.version}" for row in own if row.version)
        columns = [f"batch {batch}, {threads} thread{'s' * (threads > 1)}, ms" for batch, threads in settings]
        parts += [
            f"**{name}**: {own[0].cpu}, {own[0].date}; {', '.join(versions)}; "
            f"other programs kept {min(loads, default=0):.1f} to {max(loads, default=0):.1f} processors busy.\n",
            *heading(["engine", "file"], [*columns, "of the best peer's time", "in first calls"]),
        ]
        for engine, tool in dict.fromkeys((row.engine, row.tool) for row in own):
            lines = {(row.batch, row.threads): row for row in own if (row.engine, row.tool) == (engine, tool)}
            shown = [lines[setting] for setting in settings if setting in lines]
            known = [row for row in shown if row.of_best_peer]
            shares = " / ".join(cell(row.of_best_peer, ".3f") for row in known)
            cold = " / ".join(cell(row.cold_of_best_peer, ".3f") for row in known)
            gains = " / ".join(f"{gain:.2f} x" for row in shown if (gain := row.faster_than_normalized))
            last = shares or (f"{gains} faster than normalized" if gains else "")
            parts.append(line((engine, tool, *(_time(lines.get(setting)) for setting in settings), last, cold)))
        parts.append("")
    return "\n".join(parts)


def _time(row: Row | None) -> str:
    if row is None:
        return ""
    if row.median_ms is None:
        return escaped(row.note)
    faster = "" if row.faster_than_float is None else f" ({row.faster_than_float:.2f} x)"
    return f"{row.median_ms:#.3g}{faster}"


def drawing(rows: Sequence[Row], model: str) -> str:
    """The plot of one model with one thread."""
    panels = []
    for batch in sorted({row.batch for row in rows if row.model == model}):
        own = [row for row in rows if (row.model, row.batch, row.threads) == (model, batch, 1)]
        shown = [
            Bar(
                f"{row.engine}: {row.tool}", row.median_ms, row.low_ms or 0.0, row.high_ms or 0.0, kind(row),
                f"{row.median_ms:#.3g} ms" + (f", {row.faster_than_float:.2f} x" if row.faster_than_float else ""),
            )
            for row in own
            if row.median_ms is not None
        ]  # fmt: skip
        panels.append((f"{model}: batch {batch}, one thread; median and quartiles; x faster than float", shown))
    return bars(panels)


def publish() -> None:
    RESULTS.fill_readmes(markdown)
    rows = RESULTS.read()
    for name in dict.fromkeys(row.model for row in rows):
        write_atomically(RESULTS.csv.with_name(f"latency-{name}.svg"), drawing(rows, name).encode())


def told(row: Row) -> str:
    """A row as one line of the terminal."""
    milliseconds = row.note if row.median_ms is None else f"{row.median_ms:.3f} ms x{row.faster_than_float}"
    ratios = ((f"of {row.best_peer}", row.of_best_peer), ("x normalized", row.faster_than_normalized))
    more = "".join(f", {what} {value}" for what, value in ratios if value is not None)
    return f"{row.model} {row.batch}/{row.threads} {row.engine:12} {row.tool:36} {milliseconds}{more}"


def main() -> None:
    parser = argument_parser(
        __doc__,
        models=tuple(FOLDERS),
        quick="20 rounds, into build/ instead of results/",
        table="only fill the tables and draw the plots from the CSV",
    )
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, help="by default depends on the batch size")
    parser.add_argument("--starts", type=int, default=STARTS, help="how often all processes are started anew")
    arguments = parser.parse_args()
    if arguments.table:
        publish()
        return
    starts = 1 if arguments.quick else arguments.starts
    RESULTS.build.mkdir(parents=True, exist_ok=True)
    for name in arguments.models:
        subject = open_subject(name, arguments.data, calibration=CALIBRATION)
        candidates = list(make_files(subject, RESULTS.build / name, tools=arguments.tools))
        for batch in arguments.batches:
            for threads in arguments.threads:
                rounds = arguments.rounds or (20 if arguments.quick else ROUNDS.get(batch, 100))
                rows = measure((name, batch, threads), candidates, max(starts, rounds), starts)
                RESULTS.add(rows, RESULTS.path(quick=arguments.quick))
                print(*map(told, rows), sep="\n", flush=True)


if __name__ == "__main__":
    main()

"""How long one inference takes on every network at hand: lowbit's int8 and its peers', each in its runtime, in turns.

    python benchmarks/latency_all.py --only-make --data ../shared/data    # all files; networks of the zoo need torch
    python benchmarks/latency_all.py --only-time [--models resnet vit] [--seconds 12] [--settings 1/1 16/1 1/2]
    python benchmarks/latency_all.py --table                              # fill the table from the CSV

`latency.py` times many files of two networks; this one times the files that matter of all: float, lowbit's int8 and
`quantize_static`'s in ONNX Runtime; float, lowbit's and NNCF's with both presets in OpenVINO. Turns are those of
`latency.py`: a process for each file, in an order drawn anew in each round, ratios within rounds. Small networks of the
zoo are timed with one sample on one thread only. Rows of failed files say why.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from latency import CALLS
from latency_all_files import FLOAT, LOWBIT, NETWORKS, PEERS, ZOO, kept, make_files
from latency_files import Candidate
from machine import stamp
from rows import Results, add_steps, argument_parser, cell, escaped, heading, line
from subjects import DETECTOR
from turns import Turns, gathered

SETTINGS = ("1/1", "16/1", "1/2", "16/2")
ONE = ("1/1", "1/2")  # settings of a network that takes one sample at a time
SMALL = ("1/1",)  # of those of the zoo
MOST = 2000  # rounds, however short a call is
WANTED = 0.97  # of a peer's time


@dataclass(frozen=True)
class Row:
    """One file in one setting; ratios are medians of ratios within rounds, to files in the same engine."""

    model: str
    batch: int
    threads: int
    engine: str
    tool: str
    median_ms: float | None = None
    faster_than_float: float | None = None
    lowbit_of_it: float | None = None  # lowbit's time as a share of this file's
    rounds: int | None = None
    foreign_load: float | None = None  # processors that other programs kept busy
    version: str = ""
    cpu: str = ""
    date: str = ""
    note: str = ""


def place(row: Row) -> tuple[int, int, int, str]:
    return NETWORKS.index(row.model) if row.model in NETWORKS else len(NETWORKS), row.threads, row.batch, row.engine


RESULTS = Results("latency_all", Row, key=("model", "batch", "threads", "engine", "tool"), order=place)


def measured(model: str, setting: str, candidates: Sequence[Candidate], seconds: float, starts: int) -> list[Row]:
    """All files of a network in one setting."""
    batch, threads = map(int, setting.split("/"))
    calls = CALLS.get(batch, 3)
    found = gathered(candidates, Turns(batch, threads, calls, MOST, starts, seconds), RESULTS.build)
    wall = found.warm
    files = {(one.engine, one.tool): i for i, one in enumerate(candidates) if not np.isnan(wall[:, i]).any()}
    rows = []
    for at, one in enumerate(candidates):
        row = Row(model, batch, threads, one.engine, one.tool, version=found.versions[at], note=found.notes[at])
        row = dataclasses.replace(row, **stamp())
        if at in files.values():

            def ratio(over: str, under: int, engine: str = one.engine) -> float | None:
                other = files.get((engine, over))
                return None if other is None else float(np.median(wall[:, other] / wall[:, under]))

            row = dataclasses.replace(
                row,
                median_ms=float(np.median(wall[:, at])) / 1e6,
                faster_than_float=ratio(FLOAT, at),
                lowbit_of_it=ratio(LOWBIT, at) if one.tool in PEERS[one.engine] else None,
                rounds=len(wall),
                foreign_load=found.foreign,
            )
        rows.append(row)
    return rows


COLUMNS = ("int8 faster than float, ORT", "of quantize_static's time", "int8 faster, OpenVINO", "of NNCF's", "of mixed")


def markdown(rows: Sequence[Row], model: str | None = None) -> str:
    """A line for each network and setting; shares above the wanted one are bold, and what failed says why."""
    shown = [row for row in rows if model in (None, row.model)]
    if not shown:
        return "Not measured yet.\n"
    loads = [row.foreign_load for row in shown if row.foreign_load is not None]
    parts = [
        f"{shown[0].cpu}, {shown[0].date}; other programs kept {min(loads, default=0):.1f} to "
        f"{max(loads, default=0):.1f} processors busy. Shares above {WANTED} are bold.\n",
        *heading(["network", "batch/threads", "failed"], COLUMNS),
    ]
    for key in dict.fromkeys((row.model, row.batch, row.threads) for row in shown):
        own = {(r.engine, r.tool): r for r in shown if (r.model, r.batch, r.threads) == key}
        notes = "; ".join(f"{tool}: {row.note}" for (_, tool), row in own.items() if row.note)
        cells = []
        for engine, peers in PEERS.items():
            ours = own.get((engine, LOWBIT))
            cells.append(cell(ours and ours.faster_than_float, ".2f"))
            cells += [_share(own.get((engine, peer))) for peer in peers]
        parts.append(line((key[0], f"{key[1]}/{key[2]}", escaped(notes), *cells)))
    return "\n".join([*parts, ""])


def _share(row: Row | None) -> str:
    if row is None or row.lowbit_of_it is None:
        return ""
    text = f"{row.lowbit_of_it:.2f}"
    return f"**{text}**" if row.lowbit_of_it > WANTED else text


def main() -> None:
    parser = argument_parser(__doc__, models=NETWORKS, quick="a second each, into build/ instead of results/")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS, help="batch size/threads")
    parser.add_argument("--seconds", type=float, default=12.0, help="of turns in each setting, starts not counted")
    parser.add_argument("--starts", type=int, default=2, help="how often all processes are started anew")
    add_steps(parser)
    arguments = parser.parse_args()
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        return
    if not arguments.only_time:
        make_files(arguments.models, arguments.data, RESULTS.build)
    if arguments.only_make:
        return
    seconds, starts = (1.0, 1) if arguments.quick else (arguments.seconds, arguments.starts)
    for model in arguments.models:
        candidates = kept(RESULTS.build / model)
        if not candidates:
            print(f"{model} is skipped: none of its files were made.")
            continue
        possible = SMALL if model in ZOO else ONE if model == DETECTOR else SETTINGS
        for setting in [one for one in arguments.settings if one in possible]:
            rows = measured(model, setting, candidates, seconds, starts)
            RESULTS.add(rows, RESULTS.path(quick=arguments.quick))
            shares = [f"{row.lowbit_of_it:.2f} of {row.tool}" for row in rows if row.lowbit_of_it is not None]
            print(f"{model} {setting}: {', '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()

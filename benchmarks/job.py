"""What quantizing costs: seconds and memory of lowbit and its peers, in turns.

    python benchmarks/job.py --data ../shared/data [--images 300 2520] [--rounds 5] [--jobs "lowbit, minmax" ...]
    python benchmarks/job.py --quick            # one round with few images into build/
    python benchmarks/job.py --table            # tables from the CSV

Every run is a fresh process; rounds go through all jobs, so that a busy machine slows all of them. lowbit reads,
decodes and hashes image files, while its peers get ready arrays. Ratios are medians of ratios within rounds; rows say
how many processors other programs kept busy. Rows of one number of images are written together and replace earlier
ones; with only some jobs, include those that ratios need. Failed rows stay.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import ForeignLoad, stamp
from peer_tools import peer, run, why
from peers.job_worker import JOBS
from rows import HERE, Results, argument_parser, cell, failed, heading, line
from subjects import FOLDERS, open_subject, sources

FLOOR, PEER, NNCF = "bare forward passes", "ONNX Runtime, minmax", "NNCF, fast bias correction"
LONGEST = 1800.0


@dataclass(frozen=True)
class Row:
    """One job with a number of images."""

    model: str
    images: int
    job: str
    seconds: float | None = None
    low: float | None = None
    high: float | None = None
    cpu_seconds: float | None = None
    of_forward: float | None = None  # times the bare forward passes
    of_onnxruntime: float | None = None  # times ONNX Runtime's min-max job
    of_nncf: float | None = None  # times NNCF's job with fast bias correction
    added_mb: float | None = None  # above the loaded model
    peak_mb: float | None = None
    rounds: int | None = None
    foreign_load: float | None = None
    cpu: str = ""
    date: str = ""
    note: str = ""


COLUMNS = (
    "s", "quartiles", "processor, s", "x bare passes", "x ONNX Runtime minmax", "x NNCF fast",
    "memory above the model, MB",
)  # fmt: skip
RESULTS = Results("job", Row, key=("model", "images", "job"))


def inputs(data: Path, name: str, most: int) -> tuple[Path, str, Path]:
    """The float file, the folder of images, and the same images as the model's inputs."""
    images = open_subject(name, data, calibration=most).calibration
    RESULTS.build.mkdir(parents=True, exist_ok=True)
    path = RESULTS.build / f"{name}-{images.count}.npy"
    if not path.exists():
        shape = (images.count, *next(iter(images.batches(1))).x.shape[1:])
        array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        for batch in images.batches(32):
            array[batch.indices] = batch.x
        array.flush()
    file, folder, _ = sources(name, data)
    return file, folder, path


def once(job: str, given: tuple[Path, str, Path], count: int) -> dict[str, float]:
    """Seconds and memory of one run, in a process of its own."""
    model, folder, arrays = given
    environment_name, files, _ = JOBS[job]
    python = Path(sys.executable) if environment_name is None else peer(environment_name)
    out = RESULTS.build / "out"
    out.mkdir(parents=True, exist_ok=True)
    command = [python, HERE / "peers" / "job_worker.py", job, model, folder if files else arrays, count, out]
    answer: dict[str, float] = json.loads(run(command, timeout=LONGEST))
    return answer


def measure(name: str, given: tuple[Path, str, Path], count: int, jobs: Sequence[str], rounds: int) -> list[Row]:
    """All jobs in turns."""
    seen: dict[str, list[dict[str, float]]] = {job: [] for job in jobs}
    notes: dict[str, str] = {}
    load, own = ForeignLoad(), 0.0
    for _ in range(rounds):
        for job in jobs:
            if job in notes:
                continue
            try:
                seen[job].append(once(job, given, count))
                own += seen[job][-1]["cpu_seconds"]
            except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
                notes[job] = f"not run: {why(error)}"
    # The time for starting the processes counts as foreign: an upper bound.
    foreign = load.mean(own)
    return [summarized(Row(name, count, job, **stamp()), seen, notes.get(job, ""), foreign) for job in jobs]


def summarized(row: Row, seen: dict[str, list[dict[str, float]]], note: str, foreign: float | None) -> Row:
    """The row of one job, from what all jobs took in each round."""
    runs = seen[row.job]
    if note or not runs:
        return dataclasses.replace(row, note=note)

    def ratio(other: str) -> float | None:
        pairs = list(zip(runs, seen.get(other, []), strict=False))
        return round(float(np.median([a["seconds"] / b["seconds"] for a, b in pairs])), 3) if pairs else None

    low, median, high = np.percentile([run["seconds"] for run in runs], (25, 50, 75))
    return dataclasses.replace(
        row,
        seconds=round(float(median), 3),
        low=round(float(low), 3),
        high=round(float(high), 3),
        cpu_seconds=round(float(np.median([run["cpu_seconds"] for run in runs])), 3),
        of_forward=ratio(FLOOR),
        of_onnxruntime=ratio(PEER),
        of_nncf=ratio(NNCF),
        added_mb=round(max(run["added_bytes"] for run in runs) / 1e6, 1),
        peak_mb=round(max(run["peak_bytes"] for run in runs) / 1e6, 1),
        rounds=len(runs),
        foreign_load=None if foreign is None else round(foreign, 2),
    )


def markdown(rows: Sequence[Row], model: str | None = None) -> str:
    """One table per model and number of images."""
    parts: list[str] = []
    for name, images in dict.fromkeys((row.model, row.images) for row in rows if model in (None, row.model)):
        own = [row for row in rows if (row.model, row.images) == (name, images)]
        loads = [row.foreign_load for row in own if row.foreign_load is not None]
        parts += [
            f"**{name}, {images} images**: {own[0].cpu}, {own[0].date}; {own[0].rounds} rounds; "
            f"other programs kept {max(loads, default=0):.1f} processors busy.\n",
            *heading(["job"], COLUMNS),
        ]
        for row in own:
            if row.seconds is None:
                parts.append(failed([row.job], row.note, len(COLUMNS)))
                continue
            cells = (
                f"{row.seconds:.2f}",
                f"{row.low:.2f} - {row.high:.2f}",
                cell(row.cpu_seconds, ".2f"),
                cell(row.of_forward, ".2f"),
                cell(row.of_onnxruntime, ".2f"),
                cell(row.of_nncf, ".2f"),
                cell(row.added_mb, ".0f"),
            )
            parts.append(line((row.job, *cells)))
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    parser = argument_parser(
        __doc__, models=tuple(FOLDERS), default=["rps128"], quick="one round with 16 images, into build/"
    )
    parser.add_argument("--images", nargs="+", type=int, default=[300, 2520])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        return
    counts, rounds = ([16], 1) if arguments.quick else (arguments.images, arguments.rounds)
    for name in arguments.models:
        given = inputs(arguments.data, name, max(counts))
        for count in counts:
            rows = measure(name, given, count, arguments.jobs, rounds)
            RESULTS.add(rows, RESULTS.path(quick=arguments.quick))
            for row in rows:
                ratios = f"x{row.of_forward} of forward, x{row.of_onnxruntime} of ONNX Runtime, x{row.of_nncf} of NNCF"
                numbers = row.note or f"{row.seconds:.2f} s  {ratios}  +{row.added_mb} MB"
                print(f"{name} {count} {row.job:32} {numbers}", flush=True)


if __name__ == "__main__":
    main()

"""Whether the job grows with the network and no faster: load, calibrate and quantize, save, measure at three sizes.

    python benchmarks/scale.py [--networks mobilenet_v2 resnet50 vit_base] [--recipes int8 linear4] [--images 64]
    python benchmarks/scale.py --table

The networks are built here with random weights (`scale_networks.py`), the images are noise, and every run is a fresh
process that takes the stages one by one. Memory is the peak of each stage above what the process held before the
network was loaded. A row is written when measured; networks that fail get a row that says where.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from rows import ROOT, add_rows, busy_seconds, cell, fill_readmes, read_rows
from scale_networks import IMAGE, NETWORKS

HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "scale"
CSV = HERE / "results" / "scale.csv"
STAGES = ("load", "forward", "quantize", "save", "measure")
MEASURED, BATCH, RUNS = 16, 4, 5


@dataclass(frozen=True)
class Row:
    """One network and recipe; seconds and peak memory of each stage."""

    network: str
    recipe: str
    images: int
    weights: int | None = None
    macs: int | None = None  # of one image
    load_s: float | None = None
    forward_s: float | None = None  # the images through the float network, for comparison
    quantize_s: float | None = None  # calibration included
    save_s: float | None = None
    measure_s: float | None = None
    load_mb: float | None = None
    forward_mb: float | None = None
    quantize_mb: float | None = None
    save_mb: float | None = None
    measure_mb: float | None = None
    file_bytes: int | None = None
    kl: float | None = None
    float_ms: float | None = None
    quantized_ms: float | None = None
    foreign_load: float | None = None
    cpu: str = ""
    date: str = ""
    note: str = ""


def key(row: Row) -> tuple[object, ...]:
    return row.network, row.recipe, row.images


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field}: this needs Linux")


def work(file: Path, recipe: str, count: int) -> dict[str, object]:
    """All stages in this process."""
    import lowbit
    from lowbit.data.options import with_preprocessing
    from lowbit.engines import open_session
    from lowbit.graph.cost import cost
    from lowbit.measurement.conditions import Conditions
    from lowbit.measurement.measure import measure

    found: dict[str, object] = {}
    pixels = list(np.random.default_rng(0).integers(0, 256, (count + MEASURED, IMAGE, IMAGE, 3), np.uint8))
    before = status("VmRSS")

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        print(name, file=sys.stderr, flush=True)
        Path("/proc/self/clear_refs").write_text("5")
        started = time.perf_counter()
        yield
        found[f"{name}_s"] = round(time.perf_counter() - started, 3)
        found[f"{name}_mb"] = round((status("VmHWM") - before) / 1e6, 1)

    with stage("load"):
        model = with_preprocessing(lowbit.load(file), size=str(IMAGE), mean="imagenet", std="imagenet")
    images = lowbit.open_images(pixels[:count], model.preprocessing)
    with stage("forward"):
        session = open_session(model.to_bytes())
        for batch in images.batches(BATCH):
            session.run({model.input.name: batch.x})
        del session
    with stage("quantize"):
        quantized = lowbit.quantize(model, recipe, calibration=images, effort="fast")
    out = file.with_name(f"{file.stem}-{recipe}.onnx")
    with stage("save"):
        quantized.save(out)
    costs = cost(model)
    found |= {"weights": costs.parameters, "macs": costs.macs, "file_bytes": out.stat().st_size}
    held = lowbit.open_images(pixels[count:], model.preprocessing)
    del quantized, model
    with stage("measure"):
        rows = measure([file, out], held, conditions=Conditions(runs=RUNS, with_memory=False)).rows
    return found | {"kl": rows[1].kl, "float_ms": rows[0].latency_ms, "quantized_ms": rows[1].latency_ms}


def run(network: str, recipe: str, count: int) -> Row:
    """One row, from a process of its own."""
    from lowbit.measurement.environment import environment

    row = Row(network, recipe, count, cpu=environment().cpu, date=datetime.date.today().isoformat())
    file = BUILD / f"{network}.onnx"
    if not file.exists():
        onnx.save(NETWORKS[network](), file)
    busy, started = busy_seconds(), time.perf_counter()
    command = [sys.executable, str(HERE / "scale.py"), "--worker", str(file), recipe, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        at = next((line for line in reversed(lines) if line in STAGES), "start")
        return dataclasses.replace(row, note=f"failed at {at}: {lines[-1][:200]}".replace(str(ROOT), "."))
    found = json.loads(done.stdout.strip().splitlines()[-1])
    cpu = found.pop("cpu_seconds")
    if busy is not None:
        foreign = max(0.0, (busy_seconds() or 0.0) - busy - cpu) / (time.perf_counter() - started)
        row = dataclasses.replace(row, foreign_load=round(foreign, 2))
    return dataclasses.replace(row, **found)


def markdown(rows: Sequence[Row], _: str | None = None) -> str:
    """Seconds of each stage, and time and memory by weight and by MAC."""
    if not rows:
        return ""
    parts = [
        f"{rows[0].cpu}, {rows[0].date}; {rows[0].images} calibration images of {IMAGE}x{IMAGE}, "
        f"{MEASURED} to measure.\n",
        "| network | recipe | million weights | billion MACs | load, s | bare passes, s | quantize, s | save, s "
        "| measure, s | load + save, ns a weight | quantize, ps a MAC and image | peak memory, bytes a weight "
        "| file, bytes a weight | KL | float, ms | quantized, ms |",
        "|---|---|" + "--:|" * 14,
    ]
    for row in rows:
        if row.weights is None or row.macs is None:
            note = row.note.replace("|", "\\|")
            parts.append(f"| {row.network} | {row.recipe}: {note} |{' |' * 14}")
            continue
        peak = max(getattr(row, f"{stage}_mb") for stage in STAGES[:4])
        cells = (
            f"{row.weights / 1e6:.1f}",
            f"{row.macs / 1e9:.2f}",
            *(cell(getattr(row, f"{stage}_s"), ".2f") for stage in STAGES),
            f"{((row.load_s or 0) + (row.save_s or 0)) / row.weights * 1e9:.0f}",
            f"{(row.quantize_s or 0) / row.macs / row.images * 1e12:.0f}",
            f"{peak * 1e6 / row.weights:.1f}",
            f"{(row.file_bytes or 0) / row.weights:.2f}",
            "" if row.kl is None else f"{row.kl:.1e}",
            cell(row.float_ms, ".1f"),
            cell(row.quantized_ms, ".1f"),
        )
        parts.append(f"| {row.network} | {row.recipe} | {' | '.join(cells)} |")
    return "\n".join([*parts, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--recipes", nargs="+", default=["int8", "linear4"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="into build/ instead of results/")
    parser.add_argument("--table", action="store_true", help="only fill the tables from the CSV")
    parser.add_argument("--worker", nargs=3, metavar=("FILE", "RECIPE", "IMAGES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        file, recipe, count = arguments.worker
        print(json.dumps(work(Path(file), recipe, int(count)) | {"cpu_seconds": time.process_time()}))
        return
    if arguments.table:
        fill_readmes("scale", lambda model: markdown(read_rows(CSV, Row), model))
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / "quick.csv" if arguments.quick else CSV
    for network in arguments.networks:
        for recipe in arguments.recipes:
            row = run(network, recipe, arguments.images)
            add_rows(path, [row], key)
            print(row.note or row, flush=True)


if __name__ == "__main__":
    main()

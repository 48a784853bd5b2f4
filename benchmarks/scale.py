"""Whether time and memory grow only linearly with the network: load, quantize, save and measure at three sizes.

    python benchmarks/scale.py [--networks mobilenet_v2 resnet50 vit_base] [--recipes int8 linear4] [--images 64]
    python benchmarks/scale.py --table

The networks have random weights (`scale_networks.py`), the images are noise, and every run is a fresh process that
takes the stages one by one. Memory is the peak of each stage above what the process held before the network was loaded.
Each row is written at once; networks that fail get a row that says where.
"""

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from machine import ForeignLoad, stamp
from peer_tools import last_line
from peers.job_worker import status
from rows import HERE, ROOT, Results, argument_parser, cell, failed, heading, line
from scale_networks import IMAGE, NETWORKS

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


COLUMNS = (
    "million weights", "billion MACs", "load, s", "bare passes, s", "quantize, s", "save, s", "measure, s",
    "load + save, ns per weight", "quantize, ps per MAC and image", "peak memory, bytes per weight",
    "file, bytes per weight", "KL", "float, ms", "quantized, ms",
)  # fmt: skip
RESULTS = Results("scale", Row, key=("network", "recipe", "images"))


def work(file: Path, recipe: str, count: int) -> dict[str, object]:
    """All stages in this process."""
    import lowbit
    from lowbit.data.options import ImageWords, with_preprocessing
    from lowbit.engines import open_session
    from lowbit.graph.cost import cost
    from lowbit.measurement.conditions import Conditions
    from lowbit.measurement.measure import measure

    measured: dict[str, object] = {}
    pixels = list(np.random.default_rng(0).integers(0, 256, (count + MEASURED, IMAGE, IMAGE, 3), np.uint8))
    before = status("VmRSS")

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        print(name, file=sys.stderr, flush=True)
        Path("/proc/self/clear_refs").write_text("5")
        started = time.perf_counter()
        yield
        measured[f"{name}_s"] = round(time.perf_counter() - started, 3)
        measured[f"{name}_mb"] = round((status("VmHWM") - before) / 1e6, 1)

    with stage("load"):
        model = with_preprocessing(lowbit.load(file), ImageWords(size=str(IMAGE), mean="imagenet", std="imagenet"))
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
    measured |= {"weights": costs.parameters, "macs": costs.macs, "file_bytes": out.stat().st_size}
    held = lowbit.open_images(pixels[count:], model.preprocessing)
    del quantized, model
    with stage("measure"):
        rows = measure([file, out], held, conditions=Conditions(runs=RUNS, with_memory=False)).rows
    return measured | {"kl": rows[1].kl, "float_ms": rows[0].latency_ms, "quantized_ms": rows[1].latency_ms}


def run(network: str, recipe: str, count: int) -> Row:
    """One row, from a process of its own."""
    row = Row(network, recipe, count, **stamp())
    file = RESULTS.build / f"{network}.onnx"
    if not file.exists():
        onnx.save(NETWORKS[network](), file)
    load = ForeignLoad()
    command = [sys.executable, str(HERE / "scale.py"), "--worker", str(file), recipe, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # The worker prints each stage as it begins.
        at = next((text for text in reversed(done.stderr.splitlines()) if text in STAGES), "start")
        return dataclasses.replace(row, note=f"failed at {at}: {last_line(done.stderr)[:200]}".replace(str(ROOT), "."))
    measured = json.loads(last_line(done.stdout))
    foreign = load.mean(measured.pop("cpu_seconds"))
    return dataclasses.replace(row, foreign_load=None if foreign is None else round(foreign, 2), **measured)


def markdown(rows: Sequence[Row], _: str | None = None) -> str:
    """Seconds of each stage, and time and memory per weight and per MAC."""
    if not rows:
        return ""
    parts = [
        f"{rows[0].cpu}, {rows[0].date}; {rows[0].images} calibration images of {IMAGE}x{IMAGE}, "
        f"{MEASURED} to measure.\n",
        *heading(["network", "recipe"], COLUMNS),
    ]
    for row in rows:
        if row.weights is None or row.macs is None:
            parts.append(failed([row.network, row.recipe], row.note, len(COLUMNS)))
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
        parts.append(line((row.network, row.recipe, *cells)))
    return "\n".join([*parts, ""])


def main() -> None:
    parser = argument_parser(__doc__, quick="into build/ instead of results/")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--recipes", nargs="+", default=["int8", "linear4"])
    parser.add_argument("--images", type=int, default=64, help="images to calibrate on")
    parser.add_argument("--worker", nargs=3, metavar=("FILE", "RECIPE", "IMAGES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        file, recipe, count = arguments.worker
        print(json.dumps(work(Path(file), recipe, int(count)) | {"cpu_seconds": time.process_time()}))
        return
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        return
    RESULTS.build.mkdir(parents=True, exist_ok=True)
    for network in arguments.networks:
        for recipe in arguments.recipes:
            row = run(network, recipe, arguments.images)
            RESULTS.add([row], RESULTS.path(quick=arguments.quick))
            print(row.note or row, flush=True)


if __name__ == "__main__":
    main()

"""How long one inference takes: the files of lowbit and its peers, each in its runtime, taking turns.

    python benchmarks/latency.py --data ../shared/data [--models rps128 resnet20] [--batches 1 32] [--threads 1 2]
    python benchmarks/latency.py --quick        # a few rounds into build/, to see that everything runs

All tools get the same float network and the same calibration images. Every candidate is a process of its own, so that
peers keep their environments; in each round every candidate runs once, in an order that rotates, and ratios are taken
within rounds. So a machine that slows down slows all of them. What other programs took of the processors meanwhile is
in the rows. Rows that lose, and rows that failed, stay.
"""

import argparse
import contextlib
import csv
import dataclasses
import datetime
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy import peer, run

import lowbit
from lowbit.data.images import Images
from lowbit.data.options import with_preprocessing
from lowbit.files import write_atomically
from lowbit.formats.input_bytes import with_byte_input
from lowbit.formats.onnx import to_onnx
from lowbit.graph.model import Model
from lowbit.measurement.environment import environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "latency"
CSV = HERE / "results" / "latency.csv"
CALIBRATION = 128
ROUNDS = {1: 600, 32: 60}
FLOAT = "float"

# name -> (float file, calibration images), below --data
MODELS = {
    "rps128": ("rps128/mobilenet_v2.onnx", "rps128/train"),
    "resnet20": ("cifar10/resnet20.onnx", "cifar10/calibration"),
}


@dataclass(frozen=True)
class Candidate:
    """A file in a runtime, run by the Python of some environment."""

    engine: str
    tool: str
    runtime: str
    path: Path | str
    python: Path = Path(sys.executable)


@dataclass(frozen=True)
class Row:
    """One candidate in one setting; ratios are medians of ratios within rounds."""

    model: str
    batch: int
    threads: int
    engine: str
    tool: str
    median_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    faster_than_float: float | None = None  # than float in ONNX Runtime
    of_best_peer: float | None = None  # lowbit's rows: time as a share of the best peer's in the same engine
    rounds: int = 0
    foreign_load: float | None = None  # processors that other programs kept busy
    version: str = ""
    cpu: str = ""
    date: str = ""
    note: str = ""


KEY = ("model", "batch", "threads", "engine", "tool")


def subject(data: Path, name: str) -> tuple[Model, Images, Path]:
    file, images = MODELS[name]
    loaded = lowbit.load(data / file)
    side = loaded.input.shape[2]
    model = with_preprocessing(loaded, size=str(side), mean="imagenet", std="imagenet")
    return model, lowbit.open_images(data / images, model.preprocessing, limit=CALIBRATION), data / file


def make_files(model: Model, images: Images, path: Path, folder: Path, *, tools: Sequence[str]) -> Iterator[Candidate]:
    """Everything that can be made here; what cannot is printed and left out."""
    folder.mkdir(parents=True, exist_ok=True)
    yield Candidate("onnxruntime", FLOAT, "onnxruntime", path)
    yield Candidate("openvino", FLOAT, "openvino", path)
    yield Candidate("openvino", "float, OpenVINO's own precision", "openvino-default", path)
    makers = {"lowbit": by_lowbit, "onnxruntime": by_onnxruntime, "nncf": by_nncf, "torch": by_torch}
    for tool in tools:
        try:
            yield from makers[tool](model, images, path, folder)
        except Exception as error:
            print(f"{tool}: {error}", file=sys.stderr)


def by_lowbit(model: Model, images: Images, path: Path, folder: Path) -> Iterator[Candidate]:
    quantized = lowbit.quantize(model, "int8", calibration=images)
    file = quantized.save(folder / "lowbit.onnx")
    yield Candidate("onnxruntime", "lowbit int8", "onnxruntime", file)
    yield Candidate("openvino", "lowbit int8", "openvino", file)
    given = write_atomically(folder / "lowbit-bytes.onnx", to_onnx(with_byte_input(quantized.encoded)))
    yield Candidate("onnxruntime", "lowbit int8, bytes in", "onnxruntime", given)
    yield Candidate("openvino", "lowbit int8, bytes in", "openvino", given)
    yield Candidate("litert", "lowbit int8", "litert", quantized.save(folder / "lowbit.tflite"))


def by_onnxruntime(model: Model, images: Images, path: Path, folder: Path) -> Iterator[Candidate]:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = ({model.input.name: batch.x} for batch in images.batches(1))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.images, None)

    quant_pre_process(str(path), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
    for form in ("QDQ", "QOperator"):
        file = folder / f"onnxruntime-{form}.onnx"
        with contextlib.redirect_stdout(io.StringIO()):
            quantization.quantize_static(
                str(folder / "prepared.onnx"), str(file), Reader(), quant_format=quantization.QuantFormat[form],
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
                per_channel=True,
            )  # fmt: skip
        yield Candidate("onnxruntime", f"quantize_static {form}", "onnxruntime", file)
        if form == "QDQ":
            yield Candidate("openvino", "quantize_static QDQ", "openvino", file)


def by_nncf(model: Model, images: Images, path: Path, folder: Path) -> Iterator[Candidate]:
    python = peer("nncf")
    x = np.concatenate([batch.x for batch in images.batches(32)])
    np.save(folder / "x.npy", x)
    for backend, name, file in (("openvino", "NNCF", "model.xml"), ("onnx", "NNCF's ONNX", "model.onnx")):
        out = folder / f"nncf-{backend}"
        out.mkdir(exist_ok=True)
        command = [python, HERE / "peers" / "nncf_int8.py", path, folder / "x.npy", folder / "x.npy", out]
        run([*command, "--backend", backend, "--images", str(len(x))])
        yield Candidate("openvino", name, "openvino", out / file)
        if backend == "onnx":
            yield Candidate("onnxruntime", name, "onnxruntime", out / file)


def by_torch(model: Model, images: Images, path: Path, folder: Path) -> Iterator[Candidate]:
    """The study's network in the framework that trained it, in the environment of `make test-train`."""
    python = ROOT / ".venv-train" / "bin" / "python"
    if model.classes != 3 or not python.exists():
        return
    yield Candidate("torch", "float, eager", "torch", str(model.classes), python)
    yield Candidate("torch", "float, compiled", "torch-compile", str(model.classes), python)


class Runner:
    """A candidate's process, which runs once whenever it has its turn."""

    def __init__(self, candidate: Candidate, batch: int, threads: int) -> None:
        self.candidate = candidate
        self.errors = (BUILD / "errors.log").open("w+")
        command = [candidate.python, HERE / "peers" / "runner.py", candidate.runtime, candidate.path, batch, threads]
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip

    def answer(self) -> object:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            lines = Path(self.errors.name).read_text().strip().splitlines()
            raise RuntimeError(lines[-1][:200] if lines else f"ended with {self.process.returncode}")
        return json.loads(line)

    def turn(self) -> tuple[int, int]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        wall, cpu = self.answer()  # type: ignore[misc]
        return wall, cpu

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


def measure(name: str, candidates: Sequence[Candidate], batch: int, threads: int, rounds: int) -> list[Row]:
    machine, now = environment(), datetime.date.today().isoformat()
    base = [
        Row(name, batch, threads, candidate.engine, candidate.tool, cpu=machine.cpu, date=now)
        for candidate in candidates
    ]
    runners: dict[int, Runner] = {}
    for place, candidate in enumerate(candidates):
        runner = Runner(candidate, batch, threads)
        try:
            version = runner.answer()
            assert isinstance(version, dict)
            base[place] = dataclasses.replace(base[place], version=version["version"])
            runners[place] = runner
        except RuntimeError as error:
            base[place] = dataclasses.replace(base[place], note=f"not run: {error}")
            runner.close()
    places = list(runners)
    wall, cpu = (np.zeros((rounds, len(places))) for _ in range(2))
    busy = busy_seconds()
    started = datetime.datetime.now()
    try:
        for turn in range(rounds):
            for step in range(len(places)):
                at = (step + turn) % len(places)
                wall[turn, at], cpu[turn, at] = runners[places[at]].turn()
    finally:
        for runner in runners.values():
            runner.close()
    elapsed = (datetime.datetime.now() - started).total_seconds()
    foreign = None if busy is None else max(0.0, (busy_seconds() or 0.0) - busy - cpu.sum() / 1e9) / elapsed
    return summarized(base, places, wall, foreign)


def summarized(base: Sequence[Row], places: Sequence[int], wall: np.ndarray, foreign: float | None) -> list[Row]:
    """Rows from nanoseconds [rounds, candidates that ran]."""
    rows = list(base)
    low, median, high = np.percentile(wall / 1e6, (25, 50, 75), axis=0)
    reference = next(
        (i for i, at in enumerate(places) if (base[at].engine, base[at].tool) == ("onnxruntime", FLOAT)), None
    )
    for i, at in enumerate(places):
        peers = [
            j
            for j, other in enumerate(places)
            if base[other].engine == base[at].engine and not base[other].tool.startswith(("lowbit", FLOAT))
        ]
        share = None
        if base[at].tool.startswith("lowbit") and peers:
            best = min(peers, key=lambda j: median[j])
            share = float(np.median(wall[:, i] / wall[:, best]))
        rows[at] = dataclasses.replace(
            base[at],
            median_ms=round(float(median[i]), 4),
            low_ms=round(float(low[i]), 4),
            high_ms=round(float(high[i]), 4),
            faster_than_float=None
            if reference is None
            else round(float(np.median(wall[:, reference] / wall[:, i])), 3),
            of_best_peer=None if share is None else round(share, 3),
            rounds=len(wall),
            foreign_load=None if foreign is None else round(foreign, 2),
        )
    return rows


def busy_seconds() -> float | None:
    """Seconds that all processors together have worked since the machine started, where Linux tells."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
        return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
    return None


def write_rows(path: Path, new: Sequence[Row]) -> None:
    """Add rows to a CSV; one replaces an earlier one of the same candidate and setting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [field.name for field in dataclasses.fields(Row)]
    kept: dict[tuple[str, ...], dict[str, object]] = {}
    if path.exists():
        with path.open(newline="") as file:
            kept = {tuple(row[key] for key in KEY): dict(row) for row in csv.DictReader(file)}
    for row in new:
        entry = {name: "" if value is None else value for name, value in dataclasses.asdict(row).items()}
        kept[tuple(str(entry[key]) for key in KEY)] = entry
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept.values())
    write_atomically(path, text.getvalue().encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--tools", nargs="+", default=["lowbit", "onnxruntime", "nncf", "torch"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, help="instead of as many as the batch size asks for")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    path = BUILD / "quick.csv" if arguments.quick else CSV
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in arguments.models:
        model, images, file = subject(arguments.data, name)
        candidates = list(make_files(model, images, file, BUILD / name, tools=arguments.tools))
        for batch in arguments.batches:
            for threads in arguments.threads:
                rounds = arguments.rounds or (20 if arguments.quick else ROUNDS.get(batch, 100))
                rows = measure(name, candidates, batch, threads, rounds)
                write_rows(path, rows)
                for row in rows:
                    time = row.note if row.median_ms is None else f"{row.median_ms:.3f} ms"
                    print(f"{name} {batch}/{threads} {row.engine:12} {row.tool:32} {time}"
                          f" x{row.faster_than_float} of best peer {row.of_best_peer}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

"""Bytes against accuracy: archives, NNCodec, fixed widths and general compressors on the same models and images.

    python benchmarks/size.py --data ../shared/data [--models resnet20 rps128] [--tools lowbit nncodec ...]
    python benchmarks/size.py --table           # fill the Markdown tables and draw the plot from the CSV

Every row is a file and its predictions for test images that no tool has seen; KL is the mean divergence of its softmax
from the float file's, in nats. For lowbit all bytes are counted: codes, scales, biases, graph. For NNCodec only the
bitstream of the weights is; biases stay float and cost nothing. A row is written as soon as it is measured.
"""

import itertools
import json
import lzma
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peer_tools import peer, run
from rows import HERE, Results, argument_parser, by_model, heading, line, position
from subjects import Subject, open_subject

import lowbit
from lowbit.files import write_atomically
from lowbit.graph.ops import layers
from lowbit.measurement.accuracy import score
from lowbit.measurement.prediction import Prediction, Runs, predict

PLOT = HERE / "results" / "size.svg"
MODELS = ("resnet20", "rps128")
BATCH = 64
EQUAL_KL = (0.03, 0.09)
BITS = {"resnet20": (1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 4.0), "rps128": (1.2, 1.6, 2.7)}
RECIPES = ("linear4", "linear3", "linear2", "cluster4", "cluster3", "cluster2")
QPS = (-38, -35, -32, -29, -26, -23, -20)
NNCODEC = "nncodec==2.1.3"


@dataclass(frozen=True)
class Row:
    """One line of the CSV: accuracy in percent, KL in nats, seconds of making the file (for NNCodec, of encoding)."""

    model: str
    tool: str
    setting: str
    bytes: int
    bits_per_weight: float
    smaller: float
    accuracy: float
    drop_points: float
    kl: float
    flips: int
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Made:
    """A size in bytes, and the predictions that it gives."""

    bytes: int
    answers: Prediction
    seconds: float
    note: str = ""


Candidate = tuple[str, str, Callable[[], Made]]


def candidates(subject: Subject, tools: Sequence[str], reference: Prediction, work: Path) -> Iterator[Candidate]:
    """Everything that is compared, in the order of the table."""
    float_file = subject.path.read_bytes()
    if "controls" in tools:
        yield "float", "float32 file", lambda: Made(len(float_file), reference, 0.0)
        for name, compress in (("xz -9", lambda data: lzma.compress(data, preset=9)), ("zstd -19", zstd)):
            yield f"{name} of float", "float32 file", lambda c=compress: compressed(float_file, reference, c)
        yield "zstd -19 of int8", "linear8", lambda: int8_codes(subject, work)
    if "fixed" in tools:
        for recipe in RECIPES:
            yield "lowbit, fixed width", recipe, lambda r=recipe: fixed(subject, r, work, packed=False)
            yield "lowbit, fixed width, archived", recipe, lambda r=recipe: fixed(subject, r, work, packed=True)
    if "nncodec" in tools:
        for qp in QPS:
            yield "NNCodec", f"qp {qp}", lambda q=qp: by_nncodec(subject, q, work)
    if "lowbit" in tools:
        for bits in BITS[subject.name]:
            yield "lowbit pack", f"--bits-per-weight {bits:g}", lambda b=bits: by_lowbit(subject, b, work)


def by_lowbit(subject: Subject, bits: float, work: Path) -> Made:
    """lowbit as a user calls it."""
    started = time.perf_counter()
    packed = lowbit.pack(
        subject.model, lowbit.Goal(bits_per_weight=bits), calibration=subject.calibration, short_names=True
    )
    seconds = time.perf_counter() - started
    path = packed.save(work / "model.lowbit")
    return Made(path.stat().st_size, answered(lowbit.load(path).to_bytes(), subject), seconds)


def fixed(subject: Subject, recipe: str, work: Path, *, packed: bool) -> Made:
    """A packed ONNX file of fixed width, or its archive; quantized once for both."""
    path = work / f"{recipe}.onnx"
    seconds = 0.0
    if not path.exists():
        started = time.perf_counter()
        lowbit.quantize(subject.model, recipe, calibration=subject.calibration).save(path)
        seconds = time.perf_counter() - started
    size = len(lowbit.pack(path, short_names=True).archive) if packed else path.stat().st_size
    return Made(size, answered(path, subject), seconds)


def int8_codes(subject: Subject, work: Path) -> Made:
    """Codes of one byte each, channel by channel, through zstd; scales and all else are not counted."""
    quantized = lowbit.quantize(subject.model, "linear8")
    codes = b"".join(codes.codes.tobytes() for codes in quantized.graph.weights.values())
    path = quantized.save(work / "linear8.onnx")
    return Made(len(zstd(codes)), answered(path, subject), 0.0, "codes alone")


def compressed(content: bytes, reference: Prediction, compress: Callable[[bytes], bytes]) -> Made:
    started = time.perf_counter()
    return Made(len(compress(content)), reference, time.perf_counter() - started)


def zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=19).compress(data)


def by_nncodec(subject: Subject, qp: int, work: Path) -> Made:
    """Its defaults (dependent quantization, parameter optimization) on the folded weights; biases stay float."""
    names = {f"t{index}.weight": layer.weight for index, layer in enumerate(layers(subject.model))}
    np.savez(work / "weights.npz", **{short: subject.model.weights[name] for short, name in names.items()})
    script = HERE / "peers" / "nncodec_sweep.py"
    run([peer("nncodec", from_source=NNCODEC), script, work / "weights.npz", work, qp])
    result = json.loads((work / "result.json").read_text())[0]
    decoded = np.load(work / f"qp{qp}.npz")
    model = subject.model.with_weights({name: decoded[short] for short, name in names.items()})
    seconds = result["encode_seconds"]
    return Made(result["bytes"], answered(model.to_bytes(), subject), seconds, "weights alone")


def answered(model: Path | bytes, subject: Subject) -> Prediction:
    return predict(model, subject.test, runs=Runs(BATCH)).class_scores()


def measured(subject: Subject, candidate: Candidate, reference: Prediction) -> Row:
    tool, setting, make = candidate
    made = make()
    quality, float_score = score(made.answers, reference=reference), score(reference)
    weights = sum(subject.model.weights[name].size for name in {layer.weight for layer in layers(subject.model)})
    return Row(
        subject.name,
        tool,
        setting,
        made.bytes,
        8 * made.bytes / weights,
        subject.path.stat().st_size / made.bytes,
        100 * (quality.accuracy or 0),
        100 * ((float_score.accuracy or 0) - (quality.accuracy or 0)),
        quality.kl or 0.0,
        quality.flips or 0,
        made.seconds,
        made.note,
    )


# --- CSV, table, plot -----------------------------------------------------------------------------------------------


def place(row: Row) -> tuple[int, int, int]:
    """Where a row stands in the table: by model, then tool, then bytes."""
    return position(row.model, MODELS), position(row.tool, ORDER), -row.bytes


ORDER = ("float", "xz -9 of float", "zstd -19 of float", "zstd -19 of int8", "lowbit, fixed width")
ORDER += ("lowbit, fixed width, archived", "NNCodec", "lowbit pack")
COLUMNS = ("bytes", "bits per weight", "smaller", "KL", "drop, points", "flips", "s")
RESULTS = Results("size", Row, key=("model", "tool", "setting"), order=place)


def bits_at(rows: Iterable[Row], tool: str, kl: float) -> float | None:
    """Bits per weight of a tool at a KL, straight between its two neighbors in log KL; None outside its rows."""
    points = sorted((row.kl, row.bits_per_weight) for row in rows if row.tool == tool and row.kl > 0)
    for (near, much), (far, little) in itertools.pairwise(points):
        if near <= kl <= far and near < far:
            share = math.log(kl / near) / math.log(far / near)
            return much + (little - much) * share
    return None


def markdown(rows: Sequence[Row], *, model: str | None = None, short: bool = False) -> str:
    """What is saved at equal KL, then every row (or, if short, those of NNCodec and of `lowbit pack`)."""
    parts = []
    for name, own in by_model(rows, model).items():
        for kl in EQUAL_KL:
            ours, theirs = bits_at(own, "lowbit pack", kl), bits_at(own, "NNCodec", kl)
            if ours and theirs:
                parts.append(
                    f"**{name}** at KL {kl:g}: lowbit pack {ours:.2f} bits per weight, NNCodec {theirs:.2f}: "
                    f"{100 * (1 - ours / theirs):.0f} % fewer bytes.\n"
                )
        shown = [row for row in own if not short or row.tool in ("float", "NNCodec", "lowbit pack")]
        parts += [*heading(["model", "tool", "setting"], COLUMNS), *map(_line, shown), ""]
    return "\n".join(parts)


def table(rows: Sequence[Row], which: str | None) -> str:
    """The table that a marker asks for: of a model, and `short` or not."""
    words = (which or "").split()
    return markdown(rows, model=words[0] if words else None, short="short" in words[1:])


def _line(row: Row) -> str:
    tool = f"{row.tool} ({row.note})" if row.note else row.tool
    kl = "0" if row.kl == 0 else f"{row.kl:.1e}" if row.kl < 1e-4 else f"{row.kl:#.2g}"
    sizes = (f"{row.bytes:,}", f"{row.bits_per_weight:.2f}", f"{row.smaller:.1f}x")
    return line(
        (row.model, tool, row.setting, *sizes, kl, f"{row.drop_points:+.2f}", str(row.flips), f"{row.seconds:.1f}")
    )


COLORS = {"lowbit pack": "#0a7d4f", "NNCodec": "#c2410c", "lowbit, fixed width": "#3b6fb6"}
WIDTH, HEIGHT, EDGE = 760, 420, 56


def plot(rows: Iterable[Row], model: str = "resnet20") -> str:
    """KL against bits per weight, one line a tool, both axes logarithmic; lower left is better."""
    own = [row for row in rows if row.model == model and row.tool in COLORS and row.kl > 0]
    low, high = min(row.bits_per_weight for row in own) / 1.1, max(row.bits_per_weight for row in own) * 1.1
    least, most = min(row.kl for row in own) / 1.3, max(row.kl for row in own) * 1.3

    def x(bits: float) -> float:
        return EDGE + (WIDTH - EDGE - 20) * math.log(bits / low) / math.log(high / low)

    def y(kl: float) -> float:
        return HEIGHT - EDGE + (2 * EDGE - HEIGHT) * math.log(kl / least) / math.log(most / least)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{EDGE}" y="20">KL from float, nats ({model}; lower is better)</text>',
        f'<text x="{WIDTH - 20}" y="{HEIGHT - 12}" text-anchor="end">bits per weight</text>',
    ]
    for kl in (10.0**n * step for n in range(-4, 2) for step in (1, 3)):
        if least <= kl <= most:
            parts.append(f'<path d="M{EDGE} {y(kl):.1f}H{WIDTH - 20}" stroke="#ddd"/>')
            parts.append(f'<text x="{EDGE - 6}" y="{y(kl) + 4:.1f}" text-anchor="end">{kl:g}</text>')
    for bits in (1, 1.5, 2, 3, 4, 5, 6, 8):
        if low <= bits <= high:
            parts.append(f'<path d="M{x(bits):.1f} {EDGE}V{HEIGHT - EDGE}" stroke="#ddd"/>')
            parts.append(f'<text x="{x(bits):.1f}" y="{HEIGHT - EDGE + 18}" text-anchor="middle">{bits:g}</text>')
    for index, (tool, color) in enumerate(COLORS.items()):
        points = sorted((row.bits_per_weight, row.kl) for row in own if row.tool == tool)
        if tool != "lowbit, fixed width":
            way = " ".join(f"{x(bits):.1f},{y(kl):.1f}" for bits, kl in points)
            parts.append(f'<polyline points="{way}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(bits):.1f}" cy="{y(kl):.1f}" r="4" fill="{color}"/>' for bits, kl in points]
        parts.append(f'<text x="{WIDTH - 24}" y="{40 + 18 * index}" text-anchor="end" fill="{color}">{tool}</text>')
    return "\n".join([*parts, "</svg>", ""])


TOOLS = ("controls", "fixed", "nncodec", "lowbit")


def main() -> None:
    parser = argument_parser(__doc__, models=MODELS, quick=None)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--calibration-images", type=int, default=250)
    arguments = parser.parse_args()
    if arguments.table:
        write_atomically(PLOT, plot(RESULTS.read()).encode())
        RESULTS.fill_readmes(table)
        return
    for name in arguments.models:
        subject = open_subject(name, arguments.data, calibration=arguments.calibration_images)
        reference = predict(subject.path, subject.test, runs=Runs(BATCH)).class_scores()
        work = RESULTS.build / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        for candidate in candidates(subject, arguments.tools, reference, work):
            row = measured(subject, candidate, reference)
            RESULTS.add([row])
            print(_line(row), flush=True)


if __name__ == "__main__":
    main()

"""What coding costs in bits, time and memory, from half a million weights to 25 million: must grow linearly.

    python benchmarks/coding.py [--weights 0.5 2.2 8 25]       # millions; a row is written when measured
    python benchmarks/coding.py --table                        # the table from results/coding.csv

Networks are synthetic (bottlenecks of 1x1 and 3x3 convolutions, Student t weights, correlated inputs), since no trained
one of 25 million weights is available. Moments are given, as after calibration: `choose` is targets, scales, codes and
tables of all layers at one multiplier; `encode` makes the archive of the ONNX file and opens it again to compare;
`decode` restores the file. Seconds are of the process, one thread; peaks are those of a second run under tracemalloc
(which sees numpy's arrays), as multiples of the float weights.

The archive is compared with two lengths of its codes: the entropy of order 0 (no contexts, nothing to learn), and their
length by the coder's own contexts while these learn (adaptive); the rest is rounding, headers and everything but codes.
"""

import os
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
from machine import stamp
from onnx import TensorProto, helper, numpy_helper
from rows import Results, argument_parser, cell, failed, heading, line

import lowbit
from lowbit.calibration.moments import Moments
from lowbit.formats.onnx.archive import pack, stored_symbols, unpack
from lowbit.formats.onnx.minify import shortened
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.packing.archive import section_bytes
from lowbit.packing.contexts import Layout
from lowbit.packing.entropy import choose_coding, entropy_bits
from lowbit.quantization.rate.allocation import problem, solved_layer
from lowbit.schemes.codes import Codes

T = TypeVar("T")
MULTIPLIER = 2e-5  # share of a layer's output power that one bit is worth


@dataclass(frozen=True)
class Row:
    """One synthetic network: processor seconds, peaks as multiples of the float weights."""

    network: str
    weights: int | None = None
    choose_s: float | None = None
    encode_s: float | None = None
    decode_s: float | None = None
    choose_peak: float | None = None
    encode_peak: float | None = None
    decode_peak: float | None = None
    archive_bytes: int | None = None
    code_bytes: int | None = None  # the section of the codes alone
    entropy_bytes: float | None = None  # of the codes, order 0
    adaptive_bytes: float | None = None  # of the codes, as the coder's contexts count
    cpu: str = ""
    date: str = ""
    note: str = ""


COLUMNS = (
    "weights", "choose, s", "encode, s", "decode, s", "choose, peak", "encode, peak", "decode, peak", "archive, bytes",
    "over entropy", "over adaptive", "codes alone over adaptive",
)  # fmt: skip
RESULTS = Results("coding", Row, key=("network",))


def network(weights: int) -> Model:
    """Bottlenecks in a row (512 -> 128, 3x3, 128 -> 512 channels, 278 thousand weights each) until there are enough."""
    generator = np.random.default_rng(0)
    block = [(128, 512, 1, 1), (128, 128, 3, 3), (512, 128, 1, 1)]
    shapes = [(512, 3, 3, 3)] + block * max(1, round(weights / sum(int(np.prod(shape)) for shape in block)))
    nodes, arrays, source = [], [], "x"
    for index, shape in enumerate(shapes):
        w = (generator.standard_t(5, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        arrays += [
            numpy_helper.from_array(w, f"w{index}"),
            numpy_helper.from_array(np.zeros(shape[0], "f"), f"b{index}"),
        ]
        nodes.append(helper.make_node("Conv", [source, f"w{index}", f"b{index}"], [f"y{index}"], name=f"n{index}"))
        source = f"y{index}"
    outputs = [helper.make_tensor_value_info(source, TensorProto.FLOAT, None)]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])], outputs, arrays
    )
    return lowbit.load(onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def moments(columns: int) -> Moments:
    """Moments of inputs whose neighbors are correlated."""
    falling = np.float32(0.6) ** np.abs(np.arange(1 - columns, columns), dtype=np.float32)
    second = np.lib.stride_tricks.sliding_window_view(falling, columns)[None, ::-1].copy()
    return Moments(second, np.zeros((1, 1, 1)), np.zeros((1, columns)), np.zeros((1, 1)), 1 << 16)


def choose(model: Model) -> QuantizedGraph:
    codes: dict[str, Codes] = {}
    for layer in layers(model):
        weight = model.weights[layer.weight]
        known = moments(layer.columns)
        power = float(np.square(weight).sum())
        matrix = layer.to_matrix(weight.astype(np.float64))
        known = Moments(
            known.second, matrix @ known.second, known.input_mean, np.zeros(matrix.shape[:2]), known.positions
        )
        target, second = problem(layer, weight, known)
        codes[layer.weight], _ = solved_layer(layer, target, second, MULTIPLIER * power / layer.out_channels)
    return QuantizedGraph(model, weights=codes)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    work()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def measured(name: str, model: Model) -> Row:
    """All stages, each timed and then run again under tracemalloc."""
    count = sum(model.weights[layer.weight].size for layer in layers(model))
    encoded, choosing = timed(lambda: choose(model))
    content = shortened(to_onnx(encoded))
    packed, encoding = timed(lambda: pack(content))
    back, decoding = timed(lambda: unpack(packed))
    assert back == content
    symbols = stored_symbols(content).values()
    works = (lambda: choose(model), lambda: pack(content), lambda: unpack(packed))
    peaks = [round(peak(work) / (4 * count), 2) for work in works]
    return Row(
        name,
        count,
        *(round(seconds, 2) for seconds in (choosing, encoding, decoding)),
        *peaks,
        archive_bytes=len(packed),
        code_bytes=section_bytes(packed)["codes"],
        entropy_bytes=round(sum(map(entropy_bits, symbols)) / 8, 1),
        adaptive_bytes=round(sum(map(adaptive_bits, symbols)) / 8, 1),
        **stamp(),
    )


def adaptive_bits(symbols: np.ndarray) -> float:
    """Length of a tensor's codes by the contexts, learning included."""
    return choose_coding((symbols - symbols.min()).reshape(-1).astype(np.int16), Layout(*symbols.shape))[1]


def markdown(rows: Sequence[Row], _: str | None = None) -> str:
    """One row per network: time and memory, and how much longer the archive is than the bounds on its codes."""
    if not rows:
        return ""
    parts = [
        f"{rows[0].cpu}, {rows[0].date}; one thread.\n",
        *heading(["network"], COLUMNS),
    ]
    for row in rows:
        if row.weights is None or not row.entropy_bytes or not row.adaptive_bytes:
            parts.append(failed([row.network], row.note, len(COLUMNS)))
            continue
        cells = (
            f"{row.weights:,}",
            cell(row.choose_s, ".1f"),
            cell(row.encode_s, ".2f"),
            cell(row.decode_s, ".2f"),
            *(f"{cell(getattr(row, f'{stage}_peak'), '.1f')}x" for stage in ("choose", "encode", "decode")),
            f"{row.archive_bytes:,}",
            over(row.archive_bytes, row.entropy_bytes),
            over(row.archive_bytes, row.adaptive_bytes),
            over(row.code_bytes, row.adaptive_bytes),
        )
        parts.append(line((row.network, *cells)))
    return "\n".join([*parts, ""])


def over(size: float | None, bound: float) -> str:
    return f"{100 * ((size or 0) / bound - 1):+.2f} %"


def main() -> None:
    parser = argument_parser(__doc__, quick="into build/ instead of results/")
    parser.add_argument("--weights", nargs="+", type=float, default=[0.5, 2.2, 8, 25], help="millions")
    arguments = parser.parse_args()
    if arguments.table:
        RESULTS.fill_readmes(markdown)
        return
    for millions in arguments.weights:
        name = f"{millions:g} million"
        try:
            row = measured(name, network(round(millions * 1e6)))
        except MemoryError:
            row = Row(name, note="not run: out of memory")
        RESULTS.add([row], RESULTS.path(quick=arguments.quick))
        print(row, flush=True)


if __name__ == "__main__":
    main()

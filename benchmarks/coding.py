"""What coding costs in time and memory, from half a million weights to 25 million: both must grow linearly.

    python benchmarks/coding.py [--weights 0.5 2.2 8 25]       # millions

Networks are made up (bottlenecks of 1x1 and 3x3 convolutions, Student t weights, correlated inputs), since no
trained one of 25 million weights is at hand. Moments are given, as after calibration: `choose` is one price, targets,
steps, codes and tables of all layers; `encode` makes the archive of the ONNX file and opens it again to compare;
`decode` gives the file back. Seconds are of the process, one thread; peaks are those of a second run under tracemalloc
(which sees numpy's arrays), as multiples of the float weights. Entropy is that of order 0.
"""

import argparse
import os
import time
import tracemalloc
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import lowbit
from lowbit.calibration.moments import Moments
from lowbit.formats.archive import pack, stored_symbols, unpack
from lowbit.formats.encoded import Encoded
from lowbit.formats.onnx import to_onnx
from lowbit.formats.shortened import shortened
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.packing.entropy import entropy_bits
from lowbit.quantization.dial import solved_layer
from lowbit.schemes.codes import Codes

PRICE = 2e-5  # of the output power of a layer, for one bit


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
    """Inputs of which neighbors are alike."""
    distance = np.abs(np.subtract.outer(np.arange(columns), np.arange(columns)))
    second = (0.6**distance)[None]
    return Moments(second, np.zeros((1, 1, 1)), np.zeros((1, columns)), np.zeros((1, 1)), 1 << 16)


def choose(model: Model) -> Encoded:
    codes: dict[str, Codes] = {}
    for layer in layers(model):
        weight = model.weights[layer.weight]
        known = moments(layer.columns)
        power = float(np.square(weight).sum())
        matrix = layer.to_matrix(weight.astype(np.float64))
        known = Moments(
            known.second, matrix @ known.second, known.input_mean, np.zeros(matrix.shape[:2]), known.positions
        )
        codes[layer.weight] = solved_layer(layer, weight, known, PRICE * power / layer.out_channels)
    return Encoded(model, weights=codes)


def timed(work: Callable[[], object]) -> tuple[object, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    work()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", type=float, default=[0.5, 2.2, 8, 25], help="millions")
    print(
        "| weights | choose, s | encode, s | decode, s | choose, peak | encode, peak | decode, peak | bytes "
        "| over entropy |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for millions in parser.parse_args().weights:
        model = network(round(millions * 1e6))
        count = sum(model.weights[layer.weight].size for layer in layers(model))
        encoded, choosing = timed(lambda m=model: choose(m))
        content = shortened(to_onnx(encoded))
        packed, encoding = timed(lambda c=content: pack(c))
        back, decoding = timed(lambda p=packed: unpack(p))
        assert back == content
        entropy = sum(entropy_bits(symbols) for symbols in stored_symbols(content).values()) / 8
        works = (lambda m=model: choose(m), lambda c=content: pack(c), lambda p=packed: unpack(p))
        peaks = [peak(work) / (4 * count) for work in works]
        print(
            f"| {count:,} | {choosing:.1f} | {encoding:.2f} | {decoding:.2f} | "
            + " | ".join(f"{value:.1f}x" for value in peaks)
            + f" | {len(packed):,} | {100 * (len(packed) / entropy - 1):+.2f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()

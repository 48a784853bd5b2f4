"""Draw the figures of the documentation from real computations: on the built-in network, and on benchmarks/results.

    lowbit demo --out out/demo
    python docs/figures/make.py out/demo/results.json

Without results.json the figure of the demo stays as it is.
"""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from plot import BLUE, GRAY, GREEN, INK, ORANGE, Plot, drawing

import lowbit
from lowbit.calibration.channels import channel_statistics
from lowbit.calibration.ranges import RANGE_RULES
from lowbit.certainty.certificate import certify
from lowbit.certainty.paired import Paired
from lowbit.graph.ops import layers
from lowbit.quantization.equalizing.equalization import equalizable, equalize_network
from lowbit.quantization.solving.effort import effort_called
from lowbit.quantization.solving.gptq import coordinate_descent, gptq
from lowbit.quantization.solving.grids import UniformGrid
from lowbit.quantization.solving.linear import solve_linear
from lowbit.quantization.solving.problem import Problem, objective
from lowbit.training.assets import built_in_model

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "benchmarks" / "results"
IMAGES = 32
TOOLS = {
    "NNCodec": ("NNCodec", ORANGE),
    "lowbit, fixed width": ("packed, linear2 to linear4", GRAY),
    "lowbit, fixed width, archived": ("the same, entropy-coded", BLUE),
    "lowbit pack": ("pack --bits-per-weight 1.5 to 4", GREEN),
}


def rows_of(name: str, **where: str) -> list[dict[str, str]]:
    """Rows of a table of the benchmarks."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in where.items())]


def demo(results: dict[str, Any]) -> str:
    """Bars of what `lowbit demo` wrote: size, with speed and changed predictions."""
    float_row, *rows = results["rows"]
    parts, top = [], 34.0
    scale = 430 / float_row["file_bytes"]
    parts.append(f'<text x="8" y="20" font-weight="600">{results_title(results)}</text>')
    for row in (float_row, *rows):
        width = row["file_bytes"] * scale
        color = GRAY if row is float_row else GREEN
        said = f"{row['file_bytes'] / 1e6:.2f} MB"
        if row is not float_row:
            faster = float_row["latency_ms"] / row["latency_ms"]
            speed = f"{faster:.1f}x as fast" if faster > 1.1 else "as fast as float"
            changed = f"{row['flips']} of {images_of(results)} predictions changed"
            said += f", {speed}, {changed}"
        parts += [
            f'<text x="92" y="{top + 14:.0f}" text-anchor="end">{row["recipe"]}</text>',
            f'<rect x="100" y="{top:.0f}" width="{width:.1f}" height="18" rx="2" fill="{color}"/>',
            f'<text x="{100 + width + 8:.1f}" y="{top + 14:.0f}">{said}</text>',
        ]
        top += 26
    return drawing(parts, (700, top + 6))


def results_title(results: dict[str, Any]) -> str:
    """What was measured."""
    return f"lowbit demo: MobileNetV2, {images_of(results)} test images, size of the files"


def images_of(results: dict[str, Any]) -> int:
    """How many images the files were measured on."""
    return int(results["environment"]["data_images"])


def levels() -> str:
    """Weights of one channel, and what 3 bits can say of them: evenly spaced, and as a code book."""
    model = lowbit.load(built_in_model())
    w = max((layer.to_matrix(model.weights[layer.weight]) for layer in layers(model)), key=np.size)[0, 0]
    reach = float(np.abs(w).max()) * 1.1
    counts, edges = np.histogram(w, bins=41, range=(-reach, reach))
    plot = Plot((-reach, reach), (0, float(counts.max()) * 1.7), ("weight", "count"))
    plot.bars(list(edges), [float(count) for count in counts])
    for place, color, name, codes in (
        (
            1.5,
            BLUE,
            "linear3: 8 levels, evenly spaced",
            lowbit.Linear(3, per="tensor", symmetric=False).encode(w[None]),
        ),
        (1.22, ORANGE, "cluster3: 8 levels, by k-means", lowbit.Clusters(3, per="tensor").encode(w[None])),
    ):
        height = counts.max() * place
        plot.points([(float(level), height) for level in np.unique(codes.decode())], color)
        plot.word(-reach, height, name, color, shift=(6, -9))
    return plot.svg()


def ranges() -> str:
    """One activation, and the ranges that three rules give it."""
    model = lowbit.load(built_in_model())
    name = layers(model)[4].output
    statistics = lowbit.calibrate(model, lowbit.open_data("builtin:calibration", model).subset(IMAGES), tensors=[name])
    tensor = statistics.tensors[name]
    histogram = tensor.histogram
    share = np.maximum(histogram.counts / histogram.counts.sum(), 1e-9)
    low, high = tensor.low * 1.1, tensor.high * 1.1
    plot = Plot((low, high), (1e-6, 10), ("activation", "share of values"), log="y")
    shown = [(float(x), float(y)) for x, y in zip(histogram.centers, share, strict=True) if low < x < high and y > 1e-6]
    plot.line(shown, GRAY)
    for index, (rule, color) in enumerate((("minmax", INK), ("extremes", BLUE), ("output", ORANGE))):
        start, stop = RANGE_RULES[rule](tensor, 256)
        height = 3.0 / 3.2**index
        plot.line([(start, height), (stop, height)], color, width=3)
        plot.word(0, height, f"{rule}: {start:.2f} to {stop:.2f}", color, "middle", (0, -6))
    return plot.svg()


def rounding() -> str:
    """Two weights whose inputs go together: the nearest point of the grid is not the best one."""
    w, second = np.array([0.42, 0.4]), np.array([[1.0, 0.9], [0.9, 1.0]])
    grid = np.array([[x, y] for x in range(-1, 3) for y in range(-1, 3)], float)
    errors = np.einsum("ni,ij,nj->n", grid - w, second, grid - w)
    best, nearest = grid[np.argmin(errors)], np.rint(w)
    plot = Plot((-1.2, 2.2), (-1.2, 2.2), ("first weight, in steps", "second weight, in steps"), size=(480, 460))
    values, vectors = np.linalg.eigh(second)
    turn = np.linspace(0, 2 * np.pi, 121)
    for error in (errors.min(), float((nearest - w) @ second @ (nearest - w)), 1.0):
        circle = np.stack([np.cos(turn), np.sin(turn)])
        ellipse = w[:, None] + vectors @ (circle * np.sqrt(error / values)[:, None])
        plot.line([(float(x), float(y)) for x, y in ellipse.T if abs(x) < 2.4 and abs(y) < 2.4], GRAY, width=1)
    plot.points([tuple(point) for point in grid], INK, 3)
    plot.points([tuple(w)], GREEN, 5)
    plot.word(*w, "trained weights", GREEN, shift=(8, -8))
    for point, color, name, side in ((nearest, ORANGE, "nearest", "end"), (best, BLUE, "best", "start")):
        plot.points([tuple(point)], color, 6, hollow=True)
        error = (point - w) @ second @ (point - w)
        plot.word(*point, f"{name}: error {error:.2f}", color, side, (0, 24))
    return plot.svg()


def rounding_bits() -> str:
    """Output error of a layer of the built-in network, by bits, for each way of rounding."""
    matrix, x = inputs_of(6)
    moments = x.astype(np.float64) @ x.T / x.shape[1]
    moments += 1e-3 * np.trace(moments) / len(moments) * np.eye(len(moments))
    weights, second = matrix[None].astype(np.float32), moments[None].astype(np.float32)
    problem = Problem.of(weights, second)
    power = float((weights @ second * weights).sum())
    errors: dict[str, list[tuple[float, float]]] = {
        "nearest": [],
        "GPTQ": [],
        "coordinate descent": [],
        "grid chosen too": [],
    }
    for bits in range(2, 9):
        scheme = lowbit.Linear(bits)
        codes = scheme.encode(problem.weights[0])
        scale = codes.scale.reshape(1, -1, 1)
        low, top = scheme.code_range
        grid = UniformGrid(scale, np.zeros_like(scale), np.zeros(weights.shape[2], np.intp), low, top)
        rounded = gptq(problem.weights, problem.factor, grid)
        descended = coordinate_descent(problem.weights, rounded, problem.second, grid)
        solution = solve_linear(problem, scheme, effort_called("balanced"))
        for name, error in zip(
            errors,
            (
                objective(problem.weights, codes.decode()[None], problem.second).sum(),
                objective(problem.weights, rounded, problem.second).sum(),
                objective(problem.weights, descended, problem.second).sum(),
                solution.error.sum(),
            ),
            strict=True,
        ):
            errors[name].append((bits, float(error) / power))
    everything = [y for line in errors.values() for _, y in line]
    plot = Plot(
        (2, 8), (min(everything) / 2, max(everything) * 2), ("bits", "error of the output / its power"), log="y"
    )
    for line, color in zip(errors.values(), (GRAY, ORANGE, BLUE, GREEN), strict=True):
        plot.line(line, color)
        plot.points(line, color, 3)
    plot.legend(zip(errors, (GRAY, ORANGE, BLUE, GREEN), strict=True))
    return plot.svg()


def inputs_of(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A layer of the built-in network: weights [rows, columns], and the inputs that it gets [columns, positions]."""
    model = lowbit.load(built_in_model())
    layer = layers(model)[index]
    proto = model.to_proto()
    proto.graph.output.append(onnx.ValueInfoProto(name=layer.input))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    data = lowbit.open_data("builtin:calibration", model).subset(IMAGES)
    columns = [layer.to_columns(session.run([layer.input], batch.inputs)[0])[0] for batch in data.batches(IMAGES)]
    return layer.to_matrix(model.weights[layer.weight])[0], np.concatenate(columns, axis=1)


def bias() -> str:
    """How far the mean of each output channel is moved by 3-bit weights, in standard deviations of the channel."""
    weights, x = inputs_of(6)
    moved = (lowbit.Linear(3).encode(weights).decode() - weights) @ x
    shift = np.sort(moved.mean(axis=1) / (weights @ x).std(axis=1))
    reach = float(np.abs(shift).max()) * 1.2
    plot = Plot((0, len(shift) + 1), (-reach, reach), ("output channel, sorted", "mean moved by, in deviations"))
    plot.line([(0, 0), (len(shift) + 1, 0)], BLUE)
    plot.points([(index + 1, float(value)) for index, value in enumerate(shift)], ORANGE)
    plot.legend([("codes of 3 bits, rounded to nearest", ORANGE), ("with the bias corrected", BLUE)])
    return plot.svg()


def equalization() -> str:
    """The largest weight of each row of a depthwise layer that has one scale, before and after."""
    model = lowbit.load(built_in_model())
    schemes = {layer.weight: lowbit.Linear(8, per="tensor") for layer in layers(model)}
    data = lowbit.open_data("builtin:calibration", model).subset(IMAGES)
    equalized = equalize_network(model, channel_statistics(model, data, equalizable(model)), schemes).model
    layer = next(layer for layer in layers(model) if layer.depthwise)
    before, after = (np.abs(each.weights[layer.weight]).max(axis=(1, 2, 3)) for each in (model, equalized))
    order = np.argsort(before)
    both = np.concatenate([before / before.max(), after / after.max()])
    plot = Plot(
        (0, len(order) + 1), (float(both.min()) * 0.7, 2), ("channel, sorted", "largest weight / that of all"), log="y"
    )
    for values, color in ((before, ORANGE), (after, BLUE)):
        plot.points([(at + 1, float(values[index] / values.max())) for at, index in enumerate(order)], color)
    plot.legend([("as trained", ORANGE), ("equalized", BLUE)])
    return plot.svg()


def certificates() -> str:
    """The drop that cannot be excluded, by the number of images: where nothing changed, and where a hundredth did."""
    counts = [50, 100, 200, 372, 600, 1000, 2000, 3000, 5000]
    plot = Plot((50, 5000), (0.05, 20), ("test images", "points lost at most"), log="xy")
    for share, color, name in ((0.0, BLUE, "nothing changed"), (0.01, ORANGE, "1 % lost and 1 % gained")):
        line = []
        for count in counts:
            changed = round(share * count)
            bound = certify(Paired(images=count, lost=changed, gained=changed), limit=0.01).high
            line.append((float(count), 100 * float(bound)))
        plot.line(line, color)
        plot.points(line, color, 3)
        plot.word(*line[-3], name, color, "middle", (20, -12) if share else (-60, 26))
    plot.line([(50, 0.5), (5000, 0.5)], GRAY, "4 4", 1)
    plot.word(55, 0.5, "a limit of half a point", GRAY, shift=(0, -5))
    return plot.svg()


def archives() -> str:
    """KL by size of ResNet20's archives, packed files, and another coder."""
    plot = Plot((40, 250), (0.001, 2), ("KB", "KL from float"), log="xy")
    for tool, (_, color) in TOOLS.items():
        rows = [row for row in rows_of("size", model="resnet20", tool=tool) if "cluster" not in row["setting"]]
        line = sorted((float(row["bytes"]) / 1e3, float(row["kl"])) for row in rows)
        plot.line(line, color)
        plot.points(line, color, 3)
    plot.legend(TOOLS.values())
    return plot.svg()


def search() -> str:
    """Bytes and KL of uniform recipes and of what the search found."""
    plot = Plot((95, 220), (0.002, 0.2), ("KB", "KL from float"), log="y")
    rows = rows_of("search", model="resnet20")
    for prefix, color in (("linear", BLUE), ("cluster", ORANGE)):
        line = [
            (float(r["bytes"]) / 1e3, float(r["kl"]))
            for r in rows
            if r["at"] == "uniform" and r["what"].startswith(prefix)
        ]
        plot.line(sorted(line), color, width=1)
        plot.points(line, color, 3)
    found = [(float(r["bytes"]) / 1e3, float(r["kl"])) for r in rows if r["what"] == "searched, all families"]
    plot.points(found, GREEN, 5)
    plot.legend([("linear, the same bits in all layers", BLUE), ("cluster, the same", ORANGE), ("searched", GREEN)])
    return plot.svg()


FIGURES: Sequence[Callable[[], str]] = (
    levels,
    ranges,
    rounding,
    rounding_bits,
    bias,
    equalization,
    certificates,
    archives,
    search,
)


def main() -> None:
    """Write all of them."""
    for results in sys.argv[1:]:
        (HERE / "demo.svg").write_text(demo(json.loads(Path(results).read_text("utf-8"))), "utf-8")
    for figure in FIGURES:
        (HERE / f"{figure.__name__}.svg").write_text(figure(), "utf-8")


if __name__ == "__main__":
    main()

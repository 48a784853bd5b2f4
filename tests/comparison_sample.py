"""A made-up comparison with the shape and size of the study's: MobileNetV2, eight files, 372 images."""

import dataclasses
import io
import json
import math

import numpy as np

from lowbit.certainty.intervals import wilson_interval
from lowbit.certainty.paired import Paired
from lowbit.certainty.verdicts import Verdict, verdict
from lowbit.measurement.by_class import by_class, calibration_error
from lowbit.measurement.details import ByClass, Details, Example, LayerRow, Step
from lowbit.measurement.error import weight_histogram
from lowbit.measurement.examples import thumbnail
from lowbit.measurement.results import Comparison, Environment, LayerCostRow, ModelSummary, NetworkNode, Row
from lowbit.measurement.results_file import parse_results
from lowbit.reports.console import Console
from lowbit.reports.terminal import print_comparison

# recipe, bits, right of 372, flips, kl, loss, latency ms, SQNR dB
RECIPES = (
    ("float", 32.0, 353, 0, 0.0, 0.142, 1.57, None),
    ("int8", 8.0, 352, 3, 0.00028, 0.144, 0.95, 41.2),
    ("linear16", 16.0, 353, 0, 1.1e-9, 0.142, 1.58, 89.0),
    ("linear8", 8.0, 353, 2, 0.00011, 0.143, 1.56, 41.2),
    ("linear4", 4.0, 351, 8, 0.0036, 0.151, 1.57, 17.9),
    ("cluster8", 8.0, 353, 1, 0.00007, 0.142, 1.58, 43.6),
    ("cluster4", 4.0, 352, 7, 0.0031, 0.149, 1.57, 19.8),
    ("cluster2", 2.0, 312, 57, 0.21, 0.402, 1.57, 8.4),
)
CLASSES = ("paper", "rock", "scissors")
HOSTILE = "<script>alert('x')</script>\"&<img src=https://example.com/x.png onerror=alert(1)>"


def sample_layers() -> list[LayerCostRow]:
    layers = [LayerCostRow("features.0.0", "Conv", 3538944, 896, 3584, (32, 64, 64))]
    size, channels, number = 64, 32, 1
    for expand, out, repeat, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(repeat):
            hidden, step = channels * expand, stride if block == 0 else 1
            parts = [] if expand == 1 else [("conv.0.0", channels * hidden, hidden, size)]
            size //= step
            parts += [("conv.1.0", 9 * hidden, hidden, size), ("conv.2", hidden * out, out, size)]
            for name, weights, width, side in parts:
                shape = (width, side, side)
                layers.append(
                    LayerCostRow(
                        f"features.{number}.{name}", "Conv", weights * side * side, weights, 4 * weights, shape
                    )
                )
            channels, number = out, number + 1
    layers.append(LayerCostRow("features.18.0", "Conv", 409600 * size * size, 409600, 1638400, (1280, size, size)))
    layers.append(LayerCostRow("classifier.1", "Gemm", 3840, 3843, 15372, (3,)))
    return layers


def sample_network(names: list[str]) -> tuple[NetworkNode, ...]:
    """The layers one after the other, with a branch around every third one."""
    nodes = [NetworkNode("input", "Input")]
    for i, name in enumerate(names):
        nodes.append(NetworkNode(name, "Conv", (len(nodes) - 1,)))
        if i % 3 == 2:
            nodes.append(NetworkNode(f"add.{i}", "Add", (len(nodes) - 3, len(nodes) - 1)))
    return (*nodes, NetworkNode(names[-1], "Output", (len(nodes) - 1,)))


def sample_answers(recipe: str, right: int) -> ByClass:
    """Of 124 images of each class as many right as that makes; the others are spread over the other classes."""
    random = np.random.default_rng(len(recipe))
    labels = np.repeat(np.arange(3), 124)
    wrong = random.permutation(372)[right:]
    classes = labels.copy()
    classes[wrong] = (classes[wrong] + random.integers(1, 3, len(wrong))) % 3
    scores = random.normal(size=(372, 3))
    scores[np.arange(372), classes] += 4.0
    return by_class(scores, classes, labels)


def sample_comparison() -> Comparison:
    random = np.random.default_rng(0)
    costs = sample_layers()
    total = sum(cost.weight_bytes for cost in costs)
    weights = random.standard_t(4, 20000) * 0.03
    pictures = [thumbnail(picture(random)) for _ in range(12)]
    rows = []
    for recipe, bits, right, flips, kl, loss, latency, sqnr in RECIPES:
        low, high = wilson_interval(right, 372)
        quantized = recipe != "float"
        answers = sample_answers(recipe, right)
        # All flips but those that make up the difference lose as many as they gain.
        lost = (flips + 353 - right) // 2
        said = verdict(Paired(372, lost, flips - lost)) if quantized else Verdict("", 0.0, 0.0)
        layers = []
        for i, cost in enumerate(costs):
            noise = 6 * math.sin(i * 1.7) - (7 if ".conv.1.0" in cost.name else 0)
            stays = recipe == "linear4" and i == 0
            db = None if not quantized or stays else max(1.0, (sqnr or 0) + noise)
            layers.append(
                LayerRow(
                    cost.name, cost.op, cost.macs, int(cost.weight_bytes * (1 if stays else bits / 32)),
                    32.0 if stays else bits, None if db is None else 10 ** (-db / 10) * 1e-3, db,
                    "" if not quantized or stays else f"{recipe}/channel",
                    "the first layer is sensitive at 4 bits" if stays else "",
                )
            )  # fmt: skip
        stored = sum(layer.bytes for layer in layers)
        biases, graph = 68236, 61250 if quantized else 52410
        books = {"cluster8": 1024, "cluster4": 64, "cluster2": 16}.get(recipe, 0) * len(costs)
        scales = 4 * 17059 if recipe.startswith(("linear", "int")) else 0
        ledger = {
            "codes": stored if quantized else 0, "scales": scales, "zero_points": 17059 if recipe == "int8" else 0,
            "code_books": books, "biases": biases, "float_weights": 0 if quantized else stored, "graph": graph,
            "padding": 512 if recipe == "cluster2" else 0,
        }  # fmt: skip
        book = None
        if recipe.startswith("cluster"):
            book = np.quantile(weights, np.linspace(0.001, 0.999, 2 ** int(bits)))
        rows.append(
            Row(
                recipe=recipe, file=f"{recipe}.onnx", engine="onnxruntime", file_bytes=sum(ledger.values()),
                weight_bytes=stored + scales + books, theoretical_ratio=32 / bits, parameters=2192960 + scales // 4,
                macs=97_800_000, weight_mse=0.0 if sqnr is None else 10 ** (-sqnr / 10) * 1.9e-3, weight_sqnr_db=sqnr,
                accuracy=right / 372, accuracy_low=low, accuracy_high=high, agreement=1 - flips / 372, loss=loss,
                kl=kl, flips=flips, calibration_error=calibration_error(answers.bins),
                mcnemar_p=1.0 if flips < 20 else 2.4e-9, verdict=said.word,
                drop_low=said.low if quantized else None, drop_high=said.high if quantized else None,
                samples_needed=said.needed, latency_ms=latency,
                latency_low_ms=latency * 0.985, latency_high_ms=latency * 1.04, latency_ratio=1.57 / latency,
                expected_ratio=1.7 if recipe == "int8" else None,
                archive_bytes=round(sum(ledger.values()) * 0.86), code_bits=bits if quantized else None,
                entropy_bits=bits * 0.87 if quantized else None,
                zstd_bytes=None if quantized else 8_224_278, xz_bytes=None if quantized else 8_180_020,
                load_ms=64.0 + 210.0 * (recipe == "int4"),
                load_memory_bytes=21_400_000 - int(4e6 * (recipe == "int8")),
                peak_memory_bytes=29_800_000 + int(9e6 * (bits < 8)),
                details=Details(
                    ledger=ledger,
                    archive_ledger={kind: round(size * 0.86) for kind, size in ledger.items()},
                    parameter_counts={
                        "weights": 2189760, "biases": 17059, "scales": scales // 4,
                        "zero_points": ledger["zero_points"], "code_books": books // 4, "other": 0,
                    },
                    layers=tuple(layers),
                    histograms=(
                        weight_histogram("all weights", weights, code_book=book),
                        weight_histogram("features.18.0.weight", weights[:9000], code_book=book),
                    ) if quantized else (),
                    examples=tuple(
                        Example(31 * i, CLASSES[i % 3], CLASSES[i % 3], CLASSES[(i + 1) % 3], pictures[i])
                        for i in range(min(flips, 12))
                    ),
                    steps=(
                        Step("ranges: MSE", 0.0081, 0.0044, 1.2), Step("bias correction", 0.0044, 0.0013, 0.8),
                        Step("rounding on the layer's objective", 0.0013, kl, 6.1),
                    ) if quantized else (),
                    by_class=answers,
                    layer_us={cost.name: 5 + cost.macs / (1e5 if recipe == "int8" else 4e4) for cost in costs},
                    other_us=21.5,
                    notes=("asked 4 bits for features.0.0, given float32: the first layer is sensitive.",)
                    if recipe == "linear4" else (),
                ),
            )
        )  # fmt: skip
    first = rows[0]
    rows = [
        dataclasses.replace(
            row, file_ratio=first.file_bytes / row.file_bytes, weight_ratio=total / (row.weight_bytes or 1)
        )
        for row in rows
    ]
    environment = Environment(
        cpu="AMD EPYC 9R14", cpu_flags=("avx2", "avx512f", "avx512_vnni", "avx512_bf16"), cores=2,
        system="Linux 6.8 x86_64", python="3.11.9",
        packages={"lowbit": "0.1.0", "numpy": "2.4.6", "onnx": "1.23.2", "onnxruntime": "1.32.0"},
        engine="onnxruntime", threads=1, batch=1, runs=100, warmup=10, seeds={"calibration": 0},
        model_sha256="9f" * 32, data="builtin:test", data_images=372, data_sha256="3a" * 32,
        calibration="builtin:calibration", calibration_images=300, calibration_sha256="77" * 32, load_average=0.4,
        cpu_share=0.99, created="2026-07-01T12:00:00Z", command="lowbit demo",
    )  # fmt: skip
    model = ModelSummary("mobilenetv2-hands.onnx", 2227715, 2192960, 97_800_000, (1, 3, 128, 128), CLASSES)
    return Comparison(
        tuple(rows), environment, model, tuple(costs), network=sample_network([cost.name for cost in costs])
    )


def on_three_engines(comparison: Comparison) -> Comparison:
    """The same, as ONNX files in two engines and those that LiteRT has a form for in .tflite files of their own."""
    rows = []
    for row in comparison.rows:
        forms = [("onnxruntime", row.file, 1.0), ("openvino", row.file, 0.9)]
        if row.recipe == "int8":
            forms[1] = ("openvino", "int8-openvino.onnx", 0.9)
        if row.recipe in ("float", "int8", "linear8"):
            forms.append(("litert", f"{row.recipe}.tflite", 1.2))
        fastest = max(forms, key=lambda form: form[2])[0]
        seen: list[str] = []
        for engine, file, factor in forms:
            details = dataclasses.replace(row.details, steps=() if seen else row.details.steps)
            if file in seen:
                details = dataclasses.replace(row.details, layers=(), histograms=(), steps=(), notes=())
            seen.append(file)
            rows.append(
                dataclasses.replace(
                    row, engine=engine, file=file, label=f"{row.recipe}, {engine}", fastest_engine=fastest,
                    latency_ms=(row.latency_ms or 0) / factor, latency_ratio=(row.latency_ratio or 0) * factor,
                    kl=1e-13 if row.recipe == "float" and len(seen) > 1 else row.kl, details=details,
                )
            )  # fmt: skip
    return dataclasses.replace(comparison, rows=tuple(rows))


def without_labels(comparison: Comparison) -> Comparison:
    """The same without labels."""
    rows = tuple(
        dataclasses.replace(
            row, accuracy=None, accuracy_low=None, accuracy_high=None, loss=None, mcnemar_p=None,
            calibration_error=None, details=dataclasses.replace(row.details, by_class=None),
        )
        for row in comparison.rows
    )  # fmt: skip
    return dataclasses.replace(comparison, rows=rows)


def picture(random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:72, 0:72]
    color, ground = random.integers(120, 230, 3), random.integers(200, 255, 3)
    blob = sum(
        np.exp(-((x - random.uniform(20, 50)) ** 2 + (y - random.uniform(20, 50)) ** 2) / random.uniform(60, 260))
        for _ in range(3)
    )[..., None]
    return np.where(blob > 0.6, color, ground)


def comparison_text(comparison: Comparison, *, width: int = 100) -> str:
    """What `print_comparison` shows, as plain text of at most `width` cells per line."""
    file = io.StringIO()
    print_comparison(comparison, console=Console(file=file, width=width, no_color=True, legacy_windows=False))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def hostile() -> Comparison:
    """Every text in a results.json as an attacker would choose it, in a comparison that fills all sections.

    An empty `emulated` stays empty, for rows of an emulated target are no files and would leave the sections about
    files empty; the last row has one to poison. The other fields are poisoned even where they were empty.
    """
    sample = sample_comparison()
    emulated = dataclasses.replace(sample.rows[1], emulated="x86", latency_ms=None)
    sample = dataclasses.replace(sample, rows=(*sample.rows, emulated), notes=("A note.",), verdicts=("A verdict.",))

    def poison(value, key=""):
        if isinstance(value, dict):
            return {HOSTILE if key in ("packages", "seeds", "layer_us") else k: poison(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(item, key) for item in value]
        return HOSTILE if isinstance(value, str) and (value or key != "emulated") else value

    return parse_results(json.dumps(poison(json.loads(sample.to_json()))))

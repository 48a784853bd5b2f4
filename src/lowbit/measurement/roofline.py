"""How fast a network can be on this processor, in floats and in integers, and why: said before anything is quantized.

A layer takes what its slowest part takes:

    time = start + max(bytes / bandwidth, macs * t_mac + outputs * t_out)

t_mac, t_out (the last steps of a result: scaling, rounding, writing) and the start of an operator are measured on small
kernels of the same runtime, in floats and integers (`peaks`); windows larger than 1x1 and depthwise layers have their
own t_mac, because no runtime comes near its peak on them. This is a roofline (Williams, Waterman and Patterson 2009)
with one more roof for short sums. It leaves out what lies between the layers, and what caches do. Where both files were
timed beforehand (`forecast`), the layers are scaled so that they add up to that.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.engines import ENGINES
from lowbit.formats.opening import load
from lowbit.graph.cost import LayerCost, cost
from lowbit.graph.model import Model
from lowbit.measurement.peaks import FLOAT, INTEGER, Peaks
from lowbit.printable import brief, several
from lowbit.processor import processor
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe

# Gains smaller than this are lost in what the estimate leaves out.
WORTH_IT = 1.1
ITEM_BYTES = {FLOAT: 4, INTEGER: 1}


@dataclass(frozen=True)
class LayerSpeed:
    """What is expected of one layer.

    Attributes:
        node: its name.
        op: its operator.
        macs: multiply-accumulates.
        float_bytes: bytes read and written in float32.
        bytes: bytes read and written in the arithmetic that it gets.
        arithmetic: `integer` or `float`: what it would compute in.
        reason: why it stays float; empty for integers.
        float_us: expected time in floats, in microseconds.
        us: expected time in the arithmetic that it gets.
        limit: what limits it then: `arithmetic`, `outputs`, `memory` or `start`.
    """

    node: str
    op: str
    macs: int
    float_bytes: int
    bytes: int
    arithmetic: str
    reason: str
    float_us: float
    us: float
    limit: str

    @property
    def gain(self) -> float:
        """How many times faster than in floats."""
        return self.float_us / self.us


@dataclass(frozen=True)
class Rehearsal:
    """The whole network in floats and in integers, timed before it is quantized.

    Attributes:
        gain: how many times faster the file in integers is: the median of the ratios of runs in turn.
        float_seconds: of the float file, one run.
        runs: of each file.
    """

    gain: float
    float_seconds: float
    runs: int


@dataclass(frozen=True)
class Outlook:
    """What a whole network can expect here.

    Attributes:
        processor: its name.
        flags: its instruction sets that matter.
        peaks: what was measured.
        batch: images per run.
        layers: in execution order.
        verdict: the same in words.
        rehearsal: the whole network, timed; None where that was not possible.
    """

    processor: str
    flags: tuple[str, ...]
    peaks: Peaks
    batch: int
    layers: tuple[LayerSpeed, ...]
    verdict: str
    rehearsal: Rehearsal | None = None

    def __repr__(self) -> str:
        gain = f"{self.gain:.2f} times as fast as float" if self.layers else "no layers"
        return f"<Outlook for {several(len(self.layers), 'layer')} on {brief(self.processor)}: {gain}>"

    @property
    def gain(self) -> float:
        """How many times faster all layers together become."""
        return _gain(self.layers)

    @property
    def faster(self) -> bool:
        """Whether integers are worth it here."""
        return bool(self.gain >= WORTH_IT)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`."""
        layers = [{**asdict(layer), "gain": layer.gain} for layer in self.layers]
        return {**asdict(self), "layers": layers, "gain": self.gain, "faster": self.faster}


def outlook(
    model: Model | str | Path,
    peaks: Peaks,
    *,
    batch: int = 1,
    recipe: str | Recipe | Plan = "int8",
    rehearsal: Rehearsal | None = None,
) -> Outlook:
    """What to expect of a model on a measured processor.

    Args:
        model: the float model or its path.
        peaks: of `measure_peaks`.
        batch: images per run.
        recipe: an integer recipe, or a plan; decides which layers stay float.
        rehearsal: the whole network, timed, which the layers are to add up to.

    Raises:
        ModelError: sizes are not known before the model runs, or it is quantized already.

    >>> peaks = lowbit.measure_peaks()
    >>> len(lowbit.outlook("model.onnx", peaks).layers)
    7
    """
    model = load(model)
    decision = recipe if isinstance(recipe, Plan) else plan(model, recipe)
    decided = {node.node: node for node in decision.nodes}
    speeds = []
    for layer in cost(model, batch=batch).layers:
        if layer.op == "Gather":
            continue  # looks up a few entries
        node = decided.get(layer.node) or decided.get(layer.node.rpartition(".")[0])
        runs = layer.op not in ENGINES[peaks.engine].float_kernels
        kind = INTEGER if node is not None and node.arithmetic == "integer" and runs else FLOAT
        in_float, _ = expected(layer, peaks, FLOAT)
        seconds, limit = expected(layer, peaks, kind)
        speeds.append(
            LayerSpeed(
                node=layer.node,
                op=layer.op,
                macs=layer.macs,
                float_bytes=moved_bytes(layer, FLOAT),
                bytes=moved_bytes(layer, kind),
                arithmetic=kind,
                reason="" if node is None or kind == INTEGER else node.reason,
                float_us=in_float * 1e6,
                us=seconds * 1e6,
                limit=limit,
            )
        )
    if rehearsal is not None:
        speeds = _adding_up(speeds, rehearsal)
    name, flags = processor()
    return Outlook(name, flags, peaks, batch, tuple(speeds), verdict(speeds, peaks, flags), rehearsal)


def _adding_up(layers: Sequence[LayerSpeed], rehearsal: Rehearsal) -> list[LayerSpeed]:
    """Layers whose times add up to what the whole network took, what lies between them shared by all."""
    floats = rehearsal.float_seconds * 1e6 / (sum(layer.float_us for layer in layers) or 1.0)
    total = rehearsal.float_seconds * 1e6 / rehearsal.gain
    staying = floats * sum(layer.us for layer in layers if layer.arithmetic == FLOAT)
    running = sum(layer.us for layer in layers if layer.arithmetic == INTEGER)
    # Where layers that stay float are expected to take longer than all together did, all take their share alike.
    apart = staying < total and running > 0
    integers = (total - staying) / running if apart else total / (sum(layer.us for layer in layers) or 1.0)
    factors = {FLOAT: floats if apart else integers, INTEGER: integers}
    return [
        replace(layer, float_us=layer.float_us * floats, us=layer.us * factors[layer.arithmetic]) for layer in layers
    ]


def moved_bytes(layer: LayerCost, kind: str) -> int:
    """Input, output and weights, each once."""
    weights = int(np.prod(layer.weight_shape)) if layer.weight_shape else 0
    values = int(np.prod(layer.input_shape)) + int(np.prod(layer.output_shape)) + weights
    return values * ITEM_BYTES[kind]


def expected(layer: LayerCost, peaks: Peaks, kind: str) -> tuple[float, str]:
    """Seconds that a layer takes in one arithmetic, and what limits it."""
    rates = peaks.rates[kind]
    depthwise = layer.op == "Conv" and layer.weight_shape[1:2] == (1,) and layer.weight_shape[0] > 1
    window = layer.op in ("Conv", "ConvTranspose") and int(np.prod(layer.weight_shape[2:])) > 1
    products = layer.macs * (rates.depthwise_mac if depthwise else rates.window_mac if window else rates.mac)
    finishing = 0.0 if depthwise else int(np.prod(layer.output_shape)) * rates.output
    memory = moved_bytes(layer, kind) / peaks.bandwidth
    parts = {"arithmetic": products, "outputs": finishing, "memory": memory, "start": rates.start}
    if memory < products + finishing:
        parts["memory"] = 0.0
    return rates.start + max(memory, products + finishing), max(parts, key=lambda part: parts[part])


def verdict(layers: Sequence[LayerSpeed], peaks: Peaks, flags: Sequence[str]) -> str:
    """In words: whether integers pay on this processor, and why."""
    gain = _gain(layers)
    where = f"with {peaks.threads} thread{'s' if peaks.threads > 1 else ''} of {peaks.engine}"
    if gain < WORTH_IT:
        return f"int8 will not be faster here ({where}), because {_obstacle(layers, peaks, flags)}."
    most, share = _main_limit(layers)
    dense = peaks.rates[FLOAT].mac / peaks.rates[INTEGER].mac
    return (
        f"int8 should run about {gain:.1f} times as fast as float here ({where}). Integer MACs run {dense:.1f}x faster "
        f"than float; of the remaining time {100 * share:.0f} % is {WORDS[most]}."
    )


def _obstacle(layers: Sequence[LayerSpeed], peaks: Peaks, flags: Sequence[str]) -> str:
    """What keeps integers from being faster."""
    if not layers:
        return "it has no layer with weights"
    total = sum(layer.float_us for layer in layers) or 1.0
    dense = peaks.rates[FLOAT].mac / peaks.rates[INTEGER].mac
    staying = [layer for layer in layers if layer.arithmetic == FLOAT]
    share = sum(layer.float_us for layer in staying) / total
    if share > 0.5:
        slowest = max(staying, key=lambda layer: layer.float_us)
        return (
            f"{100 * share:.0f} % of the time is in layers that stay float, such as {slowest.node} ({slowest.reason})"
        )
    if dense < WORTH_IT and not any("vnni" in flag or flag in ("asimddp", "i8mm", "amx_int8") for flag in flags):
        return (
            "this processor has no instruction for 8-bit dot products (VNNI): integer MACs run only "
            f"{dense:.1f}x as fast as float"
        )
    limit, _ = _main_limit(layers)
    return f"most of the time is {WORDS[limit]}, and int8 would run {_gain(layers):.2f} times as fast as float"


WORDS = {
    "arithmetic": "arithmetic",
    "outputs": "rounding and writing results",
    "memory": "memory traffic",
    "start": "starting operators (the layers are tiny)",
}


def _main_limit(layers: Sequence[LayerSpeed]) -> tuple[str, float]:
    """What limits the most time, and its share of the time."""
    limits: dict[str, float] = {}
    for layer in layers:
        limits[layer.limit] = limits.get(layer.limit, 0.0) + layer.us
    most = max(limits, key=lambda limit: limits[limit])
    return most, limits[most] / (sum(limits.values()) or 1.0)


def _gain(layers: Sequence[LayerSpeed]) -> float:
    return sum(layer.float_us for layer in layers) / (sum(layer.us for layer in layers) or 1.0) if layers else 1.0

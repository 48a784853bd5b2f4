"""How fast a network can be on this processor, in floats and in integers, and why: said before anything is quantized.

A layer takes what its slowest part takes:

    time = start + max(bytes / bandwidth, macs * t_mac + outputs * t_out)

t_mac, t_out (computing a result's last steps: scaling, rounding, writing) and the start of an operator are measured on
small kernels of the very runtime, in floats and in integers; windows larger than 1x1 and depthwise layers have their
own t_mac, because no runtime comes near its peak on them. This is a roofline (Williams, Waterman and Patterson 2009)
with one more roof for short sums. It leaves out what lies between the layers, and what caches do: a guide, not a
measurement.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lowbit.engines import ENGINES, Session, engine_version, open_session
from lowbit.graph.cost import LayerCost, cost
from lowbit.graph.model import Model
from lowbit.measurement.microkernels import KERNELS, Kernel, kernel
from lowbit.processor import processor
from lowbit.progress import SILENT, Progress
from lowbit.quantization.planning.plan import plan
from lowbit.quantization.planning.recipes import Recipe

ROUNDS = 30
COPIED = 1 << 23
# Gains smaller than this are lost in what the estimate leaves out.
WORTH_IT = 1.1
FLOAT, INTEGER = "float", "integer"
ITEM_BYTES = {FLOAT: 4, INTEGER: 1}


@dataclass(frozen=True)
class Rates:
    """What one unit of work takes, in seconds.

    Attributes:
        mac: a multiply-accumulate of a matrix product or a 1x1 convolution.
        window_mac: one of a convolution over larger windows.
        depthwise_mac: one of a depthwise layer, its share of the output included.
        output: finishing one output value.
        start: starting an operator.
    """

    mac: float
    window_mac: float
    depthwise_mac: float
    output: float
    start: float


@dataclass(frozen=True)
class Peaks:
    """What was measured on this processor.

    Attributes:
        rates: by arithmetic, `float` and `integer`.
        bandwidth: bytes a second that can be read and written.
        threads: of the runtime.
        engine: the runtime.
    """

    rates: Mapping[str, Rates]
    bandwidth: float
    threads: int
    engine: str


@dataclass(frozen=True)
class LayerSpeed:
    """What is expected of one layer.

    Attributes:
        node: its name.
        op: its operator.
        macs: multiply-accumulates.
        float_bytes: read and written in float32.
        bytes: read and written in the arithmetic that it gets.
        arithmetic: `integer` or `float`: what it would compute in.
        reason: why it stays float; empty for integers.
        float_us: expected time in floats, in microseconds.
        us: expected time in the arithmetic that it gets.
        limit: what binds then: `arithmetic`, `outputs`, `memory` or `start`.
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
class Outlook:
    """What a whole network can expect here.

    Attributes:
        processor: its name.
        flags: its instruction sets that matter.
        peaks: what was measured.
        batch: images a run.
        layers: in execution order.
        verdict: one sentence.
    """

    processor: str
    flags: tuple[str, ...]
    peaks: Peaks
    batch: int
    layers: tuple[LayerSpeed, ...]
    verdict: str

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


def measure_peaks(*, engine: str = "onnxruntime", threads: int = 1, progress: Progress = SILENT) -> Peaks:
    """Run the small kernels, floats and integers in turn; takes about a second.

    Raises:
        EngineError: no such runtime, or it is not installed.
    """
    engine_version(engine)
    kernels = {name: kernel(name, to=ENGINES[engine].float_file.to) for name in KERNELS}
    found = {
        name: _seconds(item, engine=engine, threads=threads)
        for name, item in progress.track(kernels.items(), "measuring the processor", total=len(kernels))
    }
    rates = {
        kind: rates_of(kernels, {name: seconds[place] for name, seconds in found.items()})
        for place, kind in enumerate((FLOAT, INTEGER))
    }
    return Peaks(rates, _bandwidth(), threads, engine)


def rates_of(kernels: Mapping[str, Kernel], seconds: Mapping[str, float]) -> Rates:
    """Solve for the rates: long and short sums differ in how many outputs there are for each product."""
    start = seconds["tiny"] / kernels["tiny"].nodes
    net = {name: max(seconds[name] - kernels[name].nodes * start, 1e-9) for name in kernels}
    dense, shallow = kernels["dense"], kernels["shallow"]
    table = np.array([[dense.macs, dense.outputs], [shallow.macs, shallow.outputs]], float)
    mac, output = np.linalg.solve(table, [net["dense"], net["shallow"]])
    if mac <= 0:
        # Outputs explain more than everything: noise. The pure rate is an upper bound, and safe.
        mac, output = net["dense"] / dense.macs, 0.0
    if output < 0:
        output, mac = 0.0, net["dense"] / dense.macs
    window = (net["window"] - kernels["window"].outputs * output) / kernels["window"].macs
    return Rates(float(mac), max(window, mac), net["depthwise"] / kernels["depthwise"].macs, float(output), start)


def outlook(model: Model, peaks: Peaks, *, batch: int = 1, recipe: str | Recipe = "int8") -> Outlook:
    """What to expect of a model on a measured processor.

    Args:
        model: the float model.
        peaks: of `measure_peaks`.
        batch: images a run.
        recipe: an integer recipe; decides which layers stay float.

    Raises:
        ModelError: sizes are not known before the model runs, or it is quantized already.
    """
    decided = {node.node: node for node in plan(model, recipe).nodes}
    found = []
    for layer in cost(model, batch=batch).layers:
        node = decided.get(layer.node)
        runs = layer.op not in ENGINES[peaks.engine].float_kernels
        kind = INTEGER if node is not None and node.arithmetic == "integer" and runs else FLOAT
        in_float, _ = expected(layer, peaks, FLOAT)
        seconds, limit = expected(layer, peaks, kind)
        found.append(
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
    name, flags = processor()
    return Outlook(name, flags, peaks, batch, tuple(found), verdict(found, peaks, flags))


def moved_bytes(layer: LayerCost, kind: str) -> int:
    """Input, output and weights, each once."""
    weights = int(np.prod(layer.weight_shape)) if layer.weight_shape else 0
    values = int(np.prod(layer.input_shape)) + int(np.prod(layer.output_shape)) + weights
    return values * ITEM_BYTES[kind]


def expected(layer: LayerCost, peaks: Peaks, kind: str) -> tuple[float, str]:
    """Seconds that a layer takes in one arithmetic, and what binds."""
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
    """One sentence: whether integers pay on this processor, and why."""
    gain = _gain(layers)
    total = sum(layer.float_us for layer in layers) or 1.0
    where = f"with {peaks.threads} thread{'s' if peaks.threads > 1 else ''} of {peaks.engine}"
    dense = peaks.rates[FLOAT].mac / peaks.rates[INTEGER].mac
    staying = [layer for layer in layers if layer.arithmetic == FLOAT]
    stays = sum(layer.float_us for layer in staying) / total
    if gain >= WORTH_IT:
        limits = {limit: sum(layer.us for layer in layers if layer.limit == limit) for limit in _limits(layers)}
        most = max(limits, key=lambda limit: limits[limit])
        share = limits[most] / (sum(limits.values()) or 1.0)
        return (
            f"int8 should run about {gain:.1f} times as fast as float here ({where}): products in integers are "
            f"{dense:.1f} times as fast, and what then binds {share:.0%} of the time is {WORDS[most]}."
        )
    if not layers:
        because = "no layer with weights was found"
    elif stays > 0.5:
        slowest = max(staying, key=lambda layer: layer.float_us)
        because = f"{stays:.0%} of its time is in layers that stay float, such as {slowest.node} ({slowest.reason})"
    elif dense < WORTH_IT and not any("vnni" in flag or flag in ("asimddp", "i8mm", "amx_int8") for flag in flags):
        because = f"it has no instruction for 8-bit products (VNNI), which are {dense:.1f} times as fast as floats"
    else:
        limits = {limit: sum(layer.us for layer in layers if layer.limit == limit) for limit in _limits(layers)}
        most = max(limits, key=lambda limit: limits[limit])
        because = f"what binds is {WORDS[most]}, and that gains only {gain:.2f} times"
    return f"int8 will not be faster here ({where}), because {because}."


WORDS = {
    "arithmetic": "the arithmetic itself",
    "outputs": "rounding and writing results",
    "memory": "moving bytes",
    "start": "starting operators: the layers are tiny",
}


def _limits(layers: Sequence[LayerSpeed]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer.limit for layer in layers))


def _gain(layers: Sequence[LayerSpeed]) -> float:
    return sum(layer.float_us for layer in layers) / (sum(layer.us for layer in layers) or 1.0) if layers else 1.0


def _seconds(item: Kernel, *, engine: str, threads: int) -> tuple[float, float]:
    """Time of the float and of the integer kernel, in turn: the lower quartile, since others only ever add."""
    sessions: list[Session] = [
        open_session(model, engine=engine, threads=threads) for model in (item.floats, item.integers)
    ]
    x = np.random.default_rng(0).normal(size=item.x).astype(np.float32)
    times = np.zeros((ROUNDS, 2))
    for turn in range(-3, ROUNDS):
        for place, session in enumerate(sessions):
            start = time.perf_counter()
            session.run({session.input_names[0]: x})
            if turn >= 0:
                times[turn, place] = time.perf_counter() - start
    floats, integers = np.percentile(times, 25, axis=0)
    return float(floats), float(integers)


def _bandwidth() -> float:
    """Bytes a second of a copy that does not fit into the second cache: read and written."""
    source = np.ones(COPIED, np.uint8)
    target = np.empty_like(source)
    best = np.inf
    for _ in range(ROUNDS):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * COPIED / best

"""How fast this processor is, in floats and in integers, measured on small kernels of the runtime itself.

Long and short sums differ in how many outputs there are for each product, so two dense kernels give both rates:

    seconds = operators * start + macs * t_mac + outputs * t_out

Windows larger than 1x1 and depthwise layers have a rate of their own. Times are lower quartiles over some rounds, since
other programs only ever add to them.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lowbit.engines import ENGINES, Session, engine_version, open_session
from lowbit.engines.bounds import repeated
from lowbit.measurement.microkernels import KERNELS, Kernel, kernel
from lowbit.progress import IF_LONG, Progress, shows_progress

ROUNDS = 30
COPIED = 1 << 23  # bytes, more than the second cache holds
FLOAT, INTEGER = "float", "integer"


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
        bandwidth: bytes per second that can be read and written.
        threads: of the runtime.
        engine: the runtime.
    """

    rates: Mapping[str, Rates]
    bandwidth: float
    threads: int
    engine: str


@shows_progress
def measure_peaks(*, engine: str = "onnxruntime", threads: int = 1, progress: Progress = IF_LONG) -> Peaks:
    """Run the small kernels, floats and integers in turn, which takes about a second.

    Raises:
        EngineError: no such runtime, or it is not installed.

    >>> lowbit.measure_peaks(threads=1).engine
    'onnxruntime'
    """
    engine_version(engine)
    kernels = {name: kernel(name, to=ENGINES[engine].float_file.to) for name in KERNELS}
    times = {
        name: _seconds(item, engine=engine, threads=threads)
        for name, item in progress.track(kernels.items(), "measuring the processor", total=len(kernels))
    }
    rates = {
        kind: rates_of(kernels, {name: seconds[place] for name, seconds in times.items()})
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
        # Outputs would explain more than all of the time: noise. The pure rate is an upper bound, and safe.
        mac, output = net["dense"] / dense.macs, 0.0
    if output < 0:
        output, mac = 0.0, net["dense"] / dense.macs
    window = (net["window"] - kernels["window"].outputs * output) / kernels["window"].macs
    return Rates(float(mac), max(window, mac), net["depthwise"] / kernels["depthwise"].macs, float(output), start)


def _seconds(item: Kernel, *, engine: str, threads: int) -> tuple[float, float]:
    """Time of the float and of the integer kernel, in turn: the lower quartile, since others only ever add."""
    sessions: list[Session] = [
        open_session(model, engine=engine, threads=threads) for model in (item.floats, item.integers)
    ]
    x = np.random.default_rng(0).normal(size=item.x).astype(np.float32)
    times = np.zeros((ROUNDS, 2))
    with repeated():
        for turn in range(-3, ROUNDS):
            for place, session in enumerate(sessions):
                start = time.perf_counter()
                session.run({session.input_names[0]: x})
                if turn >= 0:
                    times[turn, place] = time.perf_counter() - start
    floats, integers = np.percentile(times, 25, axis=0)
    return float(floats), float(integers)


def _bandwidth() -> float:
    """Bytes per second of a copy that does not fit into the second cache: read and written."""
    source = np.ones(COPIED, np.uint8)
    target = np.empty_like(source)
    best = np.inf
    for _ in range(ROUNDS):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * COPIED / best

"""How fast: candidates side by side, so that a clock that wanders hits all of them alike.

Every round runs each candidate once, in an order that rotates from round to round; the median over rounds is the
latency, the quartiles its spread. The ratio to float is the median of the ratios *within* rounds, which a machine that
slows down half-way does not move. Sessions are opened once, and the garbage collector rests.
"""

import gc
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.engines import open_session
from lowbit.errors import DataError
from lowbit.progress import SILENT, Progress


@dataclass(frozen=True)
class Latency:
    """Time of one inference in milliseconds: median and quartiles over `runs`.

    `ratio` says how many times faster than the first candidate (above 1: faster). `cpu_share` is processor time over
    wall time during the runs: with one thread, clearly below 1 means that other programs took the processor away.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int
    ratio: float
    cpu_share: float


def latency(
    candidates: Mapping[str, bytes | Path],
    inputs: NDArray[Any] | Mapping[str, NDArray[Any]],
    *,
    engine: str | Mapping[str, str] = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    runs: int = 100,
    warmup: int = 10,
    progress: Progress = SILENT,
) -> dict[str, Latency]:
    """Time every candidate on the first `batch` of `inputs`; the first candidate is the one that ratios refer to.

    `inputs` and `engine` are the same for all, or one for each candidate by its name.

    Raises:
        DataError: fewer inputs than one batch, or no runs.
        EngineError: the runtime refuses a candidate.
    """
    given = inputs if isinstance(inputs, Mapping) else dict.fromkeys(candidates, inputs)
    fewest = min(len(x) for x in given.values())
    if fewest < batch or batch < 1 or runs < 1:
        raise DataError(
            f"{fewest} inputs and {runs} runs cannot time batches of {batch}.",
            remedy="Give at least one batch of images and one run.",
        )
    batches = [np.ascontiguousarray(given[name][:batch]) for name in candidates]
    engines = dict.fromkeys(candidates, engine) if isinstance(engine, str) else engine
    sessions = [open_session(model, engine=engines[name], threads=threads) for name, model in candidates.items()]
    feeds = [{session.input_names[0]: x} for session, x in zip(sessions, batches, strict=True)]
    wall = np.zeros((runs, len(sessions)), np.int64)
    cpu = np.zeros((runs, len(sessions)), np.int64)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in progress.track(range(-warmup, runs), "timing", total=warmup + runs):
            for place in range(len(sessions)):
                i = (place + turn) % len(sessions)
                session, feed = sessions[i], feeds[i]
                cpu_start = time.process_time_ns()
                start = time.perf_counter_ns()
                session.run(feed)
                elapsed = time.perf_counter_ns() - start
                if turn >= 0:
                    wall[turn, i] = elapsed
                    cpu[turn, i] = time.process_time_ns() - cpu_start
    finally:
        if collecting:
            gc.enable()
    return summarize(list(candidates), wall, cpu)


def summarize(names: list[str], wall: NDArray[np.int64], cpu: NDArray[np.int64]) -> dict[str, Latency]:
    """Latencies from nanoseconds [runs, candidates] of wall and processor time."""
    wall = np.maximum(wall, 1)
    low, median, high = np.percentile(wall / 1e6, (25, 50, 75), axis=0)
    ratio = np.median(wall[:, :1] / wall, axis=0)
    share = cpu.sum(axis=0) / wall.sum(axis=0)
    return {
        name: Latency(float(median[i]), float(low[i]), float(high[i]), len(wall), float(ratio[i]), float(share[i]))
        for i, name in enumerate(names)
    }


def load_average() -> float | None:
    """Mean number of processes that wanted to run during the last minute, where the system tells."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None

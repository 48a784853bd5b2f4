"""How fast: candidates side by side, so that a clock that wanders hits all of them alike.

Each round runs each candidate once, in an order that rotates from round to round; the median over rounds is the
latency, the quartiles its spread. The ratio to float is the median of the ratios *within* rounds, which a machine that
slows down half-way does not move. Sessions are opened once, and the garbage collector rests.
"""

import gc
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.data.dataset import ONLY
from lowbit.engines import Session, fed, open_session
from lowbit.engines.bounds import repeated
from lowbit.errors import DataError
from lowbit.measurement.conditions import Conditions
from lowbit.progress import SILENT, Progress

WARMUP = 10  # rounds before those that count


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
    inputs: NDArray[Any] | Mapping[str, Mapping[str, NDArray[Any]]],
    conditions: Conditions,
    *,
    engines: Mapping[str, str] | None = None,
    warmup: int = WARMUP,
    progress: Progress = SILENT,
) -> dict[str, Latency]:
    """Time every candidate on its first batch of inputs; the first candidate is the one that ratios refer to.

    Args:
        candidates: model files by name.
        inputs: [images, ...] for the only input of all candidates; or by candidate what one run of it takes.
        conditions: threads, batch and runs.
        engines: of each candidate by its name; the one engine of the conditions if left out.
        warmup: rounds that are not counted.
        progress: told after every round.

    Raises:
        DataError: fewer inputs than one batch, or no runs.
        EngineError: the runtime refuses a candidate.
    """
    batch, runs = conditions.batch, conditions.runs
    fewest = batch if isinstance(inputs, Mapping) else len(inputs)
    if fewest < batch or batch < 1 or runs < 1:
        raise DataError(
            f"cannot time {runs} runs of batches of {batch} with {fewest} inputs.",
            remedy="Give at least one batch of images and one run.",
        )
    engines = engines or dict.fromkeys(candidates, conditions.engine)
    sessions = [
        open_session(model, engine=engines[name], threads=conditions.threads) for name, model in candidates.items()
    ]
    given: Mapping[str, Mapping[str, NDArray[Any]]]
    if isinstance(inputs, Mapping):
        given = inputs
    else:
        given = {name: {ONLY: np.ascontiguousarray(inputs[:batch])} for name in candidates}
    feeds = [fed(session, given[name]) for session, name in zip(sessions, candidates, strict=True)]
    with repeated():
        wall, cpu = _timed(sessions, feeds, progress.track(range(-warmup, runs), "timing", total=warmup + runs))
    return summarize(list(candidates), wall[warmup:], cpu[warmup:])


def _timed(
    sessions: Sequence[Session], feeds: Sequence[Mapping[str, NDArray[Any]]], turns: Iterable[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Wall and processor time of every session in every turn, in nanoseconds [turns, sessions]."""
    wall: list[list[int]] = []
    cpu: list[list[int]] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in turns:
            wall.append([0] * len(sessions))
            cpu.append([0] * len(sessions))
            for place in range(len(sessions)):
                i = (place + turn) % len(sessions)
                session, feed = sessions[i], feeds[i]
                cpu_start = time.process_time_ns()
                start = time.perf_counter_ns()
                session.run(feed)
                wall[-1][i] = time.perf_counter_ns() - start
                cpu[-1][i] = time.process_time_ns() - cpu_start
    finally:
        if collecting:
            gc.enable()
    return np.array(wall, np.int64), np.array(cpu, np.int64)


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

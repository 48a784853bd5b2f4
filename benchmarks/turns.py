"""Files take turns, each in a process of its own: what `latency.py` and `latency_all.py` measure times with."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from latency_files import Candidate
from machine import ForeignLoad
from peer_tools import last_line, why
from rows import HERE

PAUSE = 0.04  # seconds between turns, where threads could keep spinning


@dataclass(frozen=True)
class Turns:
    """How files take turns.

    Attributes:
        batch: samples of one call.
        threads: of the runtime.
        calls: of one turn, the first included.
        rounds: in which each file has one turn, over all starts.
        starts: how often all processes are started anew.
        seconds: after which no further round begins, starting not counted.
    """

    batch: int
    threads: int
    calls: int
    rounds: int
    starts: int
    seconds: float = float("inf")


@dataclass(frozen=True)
class Gathered:
    """What was measured: nanoseconds [rounds, files] of first calls (`cold`) and of the others (`warm`).

    NaN stands where a file did not run; its note says why. `foreign` are the processors that others kept busy.
    """

    versions: tuple[str, ...]
    notes: tuple[str, ...]
    cold: np.ndarray
    warm: np.ndarray
    foreign: float | None


class Runner:
    """A candidate's process, which runs when it has its turn."""

    def __init__(self, candidate: Candidate, batch: int, threads: int, errors: Path) -> None:
        self.errors = errors.open("w+")
        command = [candidate.python, HERE / "peers" / "runner.py", candidate.runtime, candidate.path, batch, threads]
        command += [candidate.feeds] if candidate.feeds else []
        # A thread that keeps spinning would take the processor from the next candidate (see `PAUSE`).
        settings = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            text=True, env={**os.environ, **settings},
        )  # fmt: skip

    def answer(self) -> object:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            # Some packages print while they load.
            if line.startswith(("{", "[")):
                return json.loads(line)
        self.process.wait()
        raise RuntimeError(last_line(Path(self.errors.name).read_text())[:200])

    def turn(self, calls: int) -> tuple[int, float, int]:
        """Nanoseconds of the first call, of the median of the others, and of the processor for all."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        (first, *others), cpu = self.answer()  # type: ignore[misc]
        return first, float(np.median(others)), cpu

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


def gathered(candidates: Sequence[Candidate], turns: Turns, folder: Path) -> Gathered:
    """Let all candidates take turns; what they print to their errors goes into `folder`."""
    versions, notes = [""] * len(candidates), [one.note for one in candidates]
    walls, foreign = [], []
    for _ in range(turns.starts):
        runners: dict[int, Runner] = {}
        try:
            for at, candidate in enumerate(candidates):
                if notes[at]:
                    continue
                runner = Runner(candidate, turns.batch, turns.threads, folder / "errors.log")
                try:
                    versions[at] = runner.answer()["version"]  # type: ignore[index]
                    runners[at] = runner
                except RuntimeError as error:
                    runner.close()
                    notes[at] = f"not run: {why(error)}"
            wall, other = taken_in_turns(list(runners.values()), turns)
        finally:
            for runner in runners.values():
                runner.close()
        full = np.full((2, wall.shape[1], len(candidates)), np.nan)
        full[:, :, list(runners)] = wall
        walls.append(full)
        foreign.append(other)
    known = [load for load in foreign if load is not None]
    cold, warm = np.concatenate(walls, axis=1)
    return Gathered(tuple(versions), tuple(notes), cold, warm, float(np.mean(known)) if known else None)


def taken_in_turns(runners: Sequence[Runner], turns: Turns) -> tuple[np.ndarray, float | None]:
    """Nanoseconds [first call or the others, rounds, runners] of one start, and processors that others kept busy."""
    rounds, seconds = max(1, turns.rounds // turns.starts), turns.seconds / turns.starts
    wall: list[np.ndarray] = []
    cpu = 0
    load, own, start = ForeignLoad(), time.process_time(), time.perf_counter()
    order = np.random.default_rng(0)
    while len(wall) < rounds and (not wall or time.perf_counter() - start < seconds):
        wall.append(np.zeros((2, len(runners))))
        for at in order.permutation(len(runners)):
            *wall[-1][:, at], used = runners[at].turn(turns.calls)
            cpu += used
            time.sleep(PAUSE if turns.threads > 1 else 0.0)
    return np.stack(wall, axis=1), load.mean(cpu / 1e9 + time.process_time() - own)

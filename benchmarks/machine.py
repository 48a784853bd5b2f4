"""Where and when rows are measured, and what other programs do to the machine meanwhile."""

import datetime
import os
import time
from pathlib import Path

from lowbit.measurement.environment import environment


def stamp() -> dict[str, str]:
    """The columns `cpu` and `date`."""
    return {"cpu": environment().cpu, "date": datetime.date.today().isoformat()}


class ForeignLoad:
    """Measures how many processors other programs keep busy, from its creation on."""

    def __init__(self) -> None:
        self.busy, self.started = busy_seconds(), time.perf_counter()

    def mean(self, own: float) -> float | None:
        """Processors that other programs kept busy on average, where Linux tells.

        Args:
            own: processor seconds that the benchmark itself took meanwhile.
        """
        now = busy_seconds()
        if self.busy is None or now is None:
            return None
        return max(0.0, now - self.busy - own) / (time.perf_counter() - self.started)


def busy_seconds() -> float | None:
    """Seconds that all processors together have worked since the machine was started, where Linux tells."""
    try:
        user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    except (OSError, ValueError, IndexError):
        return None
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")

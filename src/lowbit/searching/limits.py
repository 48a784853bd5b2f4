"""What a search is asked for, and how it is to search."""

import math
from dataclasses import dataclass

from lowbit.errors import SchemeError

SIZE, LATENCY = "size", "latency"
DISTANCE = "distance"  # what is minimized where nothing limits the drop
MINIMIZE = (SIZE, LATENCY)


@dataclass(frozen=True)
class SearchLimits:
    """What a file has to keep, and what is to be least.

    Attributes:
        max_drop: points of accuracy that may be lost, percent of predictions that may change where there are no labels,
            or a hundredth of the task's metric; None minimizes the distance from float within the other limits.
        minimize: `size` or `latency`.
        max_size: bytes of the file.
        max_latency_ms: of one inference.
        seconds: that the search may take.
        confidence: of the certificate.

    Raises:
        SchemeError: a limit that cannot be one, nothing to limit, or nothing known to minimize.

    >>> lowbit.SearchLimits(max_drop=1.0, max_size=900_000, minimize="latency").seconds
    300.0
    """

    max_drop: float | None = None
    minimize: str = SIZE
    max_size: int | None = None
    max_latency_ms: float | None = None
    seconds: float = 300.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        given = {
            "max_drop": self.max_drop,
            "max_size": self.max_size,
            "max_latency_ms": self.max_latency_ms,
            "seconds": self.seconds,
        }
        for name, value in given.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SchemeError(f"{name} of {value} cannot be kept.", remedy="Give a number above 0.")
        if self.minimize not in MINIMIZE:
            raise SchemeError(
                f"'{self.minimize}' cannot be minimized.", remedy=f"Choose one of: {', '.join(MINIMIZE)}."
            )
        if self.max_drop is None and self.max_size is None and self.max_latency_ms is None:
            raise SchemeError(
                "nothing limits the search.",
                remedy="Give at least one of --max-drop, --max-size and --max-latency, in Python max_drop, max_size "
                "and max_latency_ms.",
            )

    @property
    def least(self) -> str:
        """What is to be least: size, latency, or the distance from float."""
        return DISTANCE if self.max_drop is None else self.minimize

    @property
    def timed(self) -> bool:
        """Whether times matter."""
        return self.max_latency_ms is not None or self.minimize == LATENCY


@dataclass(frozen=True)
class SearchSettings:
    """How to search, beside the limits.

    Attributes:
        recipes: families or recipes that layers may get, such as `linear` and `int8`; empty for all that the limits
            have a use for.
        effort: how long to search for the codes of every candidate, a row of `EFFORTS`.
        rounds: at most; each makes two candidates.
        workers: number of processes, or the address of a Dask scheduler, such as tcp://10.0.0.1:8786.
        seed: of the choice of samples.
        archive: write entropy-coded archives, their bits allocated unless recipes are named.
        short_names: rename inner tensors; see `formats.onnx.minify`.
        engine: runtime that latency is measured on.
        threads: that a candidate may use; 0 takes as many as there are cores.
        resume: begin with the candidates that an earlier search left in the folder.

    >>> lowbit.SearchSettings(recipes=("int8", "linear"), workers="2").effort
    'balanced'
    """

    recipes: tuple[str, ...] = ()
    effort: str = "balanced"
    rounds: int = 8
    workers: str = "1"
    seed: int = 0
    archive: bool = False
    short_names: bool = False
    engine: str = "onnxruntime"
    threads: int = 0
    resume: bool = False

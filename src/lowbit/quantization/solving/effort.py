"""How much work rounding may take: one table, chosen by name."""

from dataclasses import dataclass

from lowbit.errors import SchemeError


@dataclass(frozen=True)
class Effort:
    """Limits of the search for the codes of one layer.

    Attributes:
        name: what the command line calls it.
        scales: how many scales are tried, from one that covers all weights downwards.
        sweeps: maximum passes of coordinate descent.
        rounds: how often grid (or code book) and codes are re-solved in turn.
        nudges: scales tried around the best one at the end.
        exact: solve kernels of few columns to the proven optimum.
        positions: input positions that a dense layer's moments are taken from, for each of its columns.
        images: maximum number of calibration images that are looked at.
        widest: maximum bits of codes, with a scale per channel, that are chosen for the objective; wider ones are
            rounded.
        beam_width: partial solutions of each row that are kept where codes are chosen for their bits too
            (`quantization.solving.rate_distortion`).
    """

    name: str
    scales: int
    sweeps: int
    rounds: int
    nudges: int
    exact: bool
    positions: int
    images: int
    widest: int
    beam_width: int


EFFORTS: dict[str, Effort] = {
    "fast": Effort(
        "fast", scales=8, sweeps=3, rounds=1, nudges=0, exact=False, positions=60, images=128, widest=6, beam_width=4
    ),
    "balanced": Effort(
        "balanced",
        scales=12,
        sweeps=6,
        rounds=2,
        nudges=0,
        exact=True,
        positions=120,
        images=512,
        widest=7,
        beam_width=8,
    ),
    "best": Effort(
        "best",
        scales=24,
        sweeps=12,
        rounds=4,
        nudges=6,
        exact=True,
        positions=400,
        images=2048,
        widest=8,
        beam_width=64,
    ),
}


def effort_called(name: str) -> Effort:
    """The row of `EFFORTS` with this name.

    Raises:
        SchemeError: there is none.
    """
    if name not in EFFORTS:
        raise SchemeError(f"unknown effort '{name}'.", remedy=f"Choose one of: {', '.join(EFFORTS)}.")
    return EFFORTS[name]

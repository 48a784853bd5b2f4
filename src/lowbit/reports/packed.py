"""What `lowbit pack` did: the size of the archive, where its bytes are, what was tried."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lowbit.formats.size_report import Sizes
from lowbit.packing.archive import section_bytes
from lowbit.quantization.rate.packed import Packed
from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.reports.sizes import print_sizes, sizes_json


def packed_json(packed: Packed, path: Path, counted: Sizes, *, source_bytes: int) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "file": str(path),
        "file_bytes": len(packed.archive),
        "ratio": source_bytes / len(packed.archive),
        "sections": section_bytes(packed.archive),
        "sizes": sizes_json(counted),
        "trials": [asdict(trial) for trial in packed.trials],
        "certificate": None if packed.certificate is None else packed.certificate.to_json(),
    }


def print_packed(
    packed: Packed,
    path: Path,
    source: Path,
    counted: Sizes,
    *,
    source_bytes: int,
    console: Console | None = None,
) -> None:
    """One line for the file, a table of its bytes, one line for each trial."""
    console = console or Console()

    def say(text: str) -> None:
        console.print(text, highlight=False)

    size = len(packed.archive)
    say(f"{path}: {size:,} bytes, {units.smaller(source_bytes / size)} than {source} ({source_bytes:,} bytes).")
    print_sizes(counted, console=console)
    for trial in packed.trials:
        how = trial.measure
        if trial.distance is not None:
            how += f" from float {units.divergence(trial.distance)}"
        dropped = "" if trial.drop is None else f", {trial.drop:+.2f} points lost"
        say(
            f"Tried {trial.recipe}: {trial.archive_bytes:,} bytes, {trial.bits_per_weight:.2f} bits per weight, "
            f"{how}{dropped}"
        )
    if packed.certificate is not None:
        say(packed.certificate.sentence() if packed.certificate.holds else f"! Not certified. {unmet(packed)}")


def unmet(packed: Packed) -> str:
    """What is said of an archive whose drop is not certified, and what would help."""
    assert packed.certificate is not None
    help_ = (
        "This is the most cautious archive. Give more images to --data, allow a larger drop or a lower --confidence"
        if packed.certificate.holds is None
        else "This is the most cautious archive. Allow a larger drop, or give more images to --calibration"
    )
    return f"{packed.certificate.sentence()} {help_}."

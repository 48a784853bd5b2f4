"""What `lowbit pack` did: the archive's size, where its bytes went, what was tried."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from lowbit.formats.controls import Controls
from lowbit.packing.archive import section_bytes
from lowbit.quantization.pack import Packed
from lowbit.reports import units

ALL_KINDS = ("codes", "float_weights", "scales", "zero_points", "code_books", "biases", "constants", "numbers", "graph")


def packed_json(packed: Packed, path: Path, counted: Controls, *, source_bytes: int) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "file": str(path),
        "file_bytes": len(packed.archive),
        "ratio": source_bytes / len(packed.archive),
        "sections": section_bytes(packed.archive),
        "ledger": asdict(counted),
        "trials": [asdict(trial) for trial in packed.trials],
    }


def print_packed(
    packed: Packed, path: Path, source: Path, counted: Controls, *, source_bytes: int, console: Console | None = None
) -> None:
    """One line for the file, a table of its bytes, one line for each trial."""
    console = console or Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    size = len(packed.archive)
    say(f"{path}: {size:,} bytes, {source_bytes / size:.2f}x smaller than {source} ({source_bytes:,} bytes).")
    columns = (counted.given, counted.packed, counted.archive)
    say(f"{'bytes':<14}{'file given':>14}{'packed ONNX':>14}{'archive':>14}")
    for kind in ALL_KINDS:
        if any(kind in column for column in columns):
            cells = (f"{column[kind]:,}" if kind in column else units.MISSING for column in columns)
            say(f"{kind:<14}" + "".join(f"{cell:>14}" for cell in cells))
    say(f"{'sum':<14}" + "".join(f"{sum(column.values()):>14,}" for column in columns))
    say(
        f"codes: {counted.float_bytes:,} bytes as float, {counted.fixed_bytes:,} at fixed width, "
        f"{counted.entropy_bytes:,} by their entropy, {counted.archive['codes']:,} in the archive."
    )
    if counted.xz_bytes is not None:
        say(f"control: xz makes {counted.xz_bytes:,} bytes of the file given.")
    for trial in packed.trials:
        dropped = "" if trial.drop is None else f", {trial.drop:+.2f} points lost"
        say(
            f"tried: {trial.archive_bytes:,} bytes, {trial.bits_per_weight:.2f} bits a weight, "
            f"KL from float {trial.kl:.2g}{dropped}"
        )

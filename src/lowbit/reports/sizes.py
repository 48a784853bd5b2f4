"""Where the bytes of a network are, as float, packed and entropy-coded, and what theory and compressors say."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lowbit.formats.size_report import Sizes
from lowbit.reports import units
from lowbit.reports.console import Console
from lowbit.reports.inspection import COUNTED
from lowbit.reports.tables import fitted, numbers, words

NOT_CODED = "not entropy-coded: add --coded (coded=True in Python)"
NOT_COMPRESSED = "float file not compressed: add --control, and --against with the float file of a quantized one"


def print_sizes(sizes: Sizes, *, console: Console | None = None) -> None:
    """A table of kinds, and a line each for the codes and for the control."""
    console = console or Console()
    columns: dict[str, Mapping[str, int]] = {"as float": sizes.raw, "in the file": sizes.packed}
    if sizes.coded is not None:
        columns["in an archive"] = sizes.coded
    counts = sizes.counts
    rows = [
        (
            title,
            units.count(counts.get(kind)),
            *(units.count(column[kind]) if kind in column else units.MISSING for column in columns.values()),
        )
        for kind, title in COUNTED.items()
        if counts.get(kind) or any(kind in column for column in columns.values())
    ]
    totals = (units.count(sum(numbers.values())) for numbers in (counts, *columns.values()))
    rows.append(("total", *totals))
    heads = (words("bytes"), numbers("numbers"), *map(numbers, columns))
    console.print(fitted(heads, rows, console.width, total=True))
    for line in size_lines(sizes):
        console.print(line, highlight=False)


def size_lines(sizes: Sizes) -> tuple[str, ...]:
    """What the codes could take, and what compressors make of the float file, in sentences."""
    lines = []
    if sizes.entropy_bits is not None and sizes.theoretical_ratio is not None:
        coded = ""
        if sizes.coded is not None:
            coded = f", {8 * sizes.coded.get('codes', 0) / sizes.weights:.2f} in the archive"
        lines.append(
            f"Codes: {32 / sizes.theoretical_ratio:.2f} bits per weight in the file (32/n = "
            f"{sizes.theoretical_ratio:.2f}), {sizes.entropy_bits:.2f} by their empirical entropy{coded}."
        )
    if sizes.controls and sizes.float_bytes is not None:
        own = sum((sizes.packed if sizes.coded is None else sizes.coded).values())
        made = ", ".join(
            f"{name} {size:,} ({units.smaller(sizes.float_bytes / size)})" for name, size in sizes.controls.items()
        )
        what = "this file" if sizes.coded is None else "the archive"
        lines.append(
            f"For comparison: the float file takes {sizes.float_bytes:,} bytes, {made}; {what} {own:,} "
            f"({units.smaller(sizes.float_bytes / own)})."
        )
    return tuple(lines)


def sizes_json(sizes: Sizes) -> dict[str, Any]:
    """The same as plain data; what was not computed is null, and a note says so."""
    return {
        **asdict(sizes),
        "entropy_bits": sizes.entropy_bits,
        "theoretical_ratio": sizes.theoretical_ratio,
        "controls": dict(sizes.controls) or None,
        "notes": [NOT_CODED] * (sizes.coded is None) + [NOT_COMPRESSED] * (not sizes.controls),
    }

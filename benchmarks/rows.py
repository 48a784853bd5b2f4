"""Rows of a benchmark in a CSV file, and what is generated from them into benchmarks/README.md.

A row is a frozen dataclass; one that was measured again replaces the row with the same key and keeps its place. So a
run can be stopped and taken up again, and a README's tables can be checked against the CSV.
"""

import csv
import dataclasses
import io
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from lowbit.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
READMES = (ROOT / "benchmarks" / "README.md",)

R = TypeVar("R")


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """What `write_rows` wrote; nothing if there is no such file."""
    if not path.exists():
        return []
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]

    def value(name: str, text: str) -> object:
        of = fields[name]
        if "str" in of:
            return text
        return None if not text else int(text) if "int" in of else float(text)

    with path.open(newline="", encoding="utf-8") as file:
        return [kind(**{k: value(k, v) for k, v in line.items() if k in fields}) for line in csv.DictReader(file)]


def add_rows(path: Path, new: Sequence[R], key: Callable[[R], tuple[object, ...]]) -> list[R]:
    """Write rows to a CSV, whole or not at all; one replaces an earlier one of the same key."""
    kept = {key(row): row for row in read_rows(path, type(new[0]))}
    kept |= {key(row): row for row in new}
    write_rows(path, list(kept.values()))
    return list(kept.values())


def write_rows(path: Path, rows: Sequence[R]) -> None:
    """Whole or not at all; six digits of what is not a whole number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(rows[0]))  # type: ignore[arg-type]
    for row in rows:
        values = dataclasses.astuple(row)  # type: ignore[call-overload]
        writer.writerow(f"{v:.6g}" if isinstance(v, float) else "" if v is None else v for v in values)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue().encode())


def filled(text: str, name: str, table: Callable[[str | None], str]) -> str:
    """`text` with a table between `<!-- NAME table -->` (or `<!-- NAME table: which -->`) and its end."""
    markers = re.compile(rf"(<!-- {name} table(?:: ([\w ]+))? -->\n).*?(<!-- end {name} table -->)", re.DOTALL)
    return markers.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[3]}", text)


def fill_readmes(name: str, table: Callable[[str | None], str]) -> None:
    for path in READMES:
        before = path.read_text(encoding="utf-8")
        after = filled(before, name, table)
        if after != before:
            write_atomically(path, after.encode())
        print(f"{path.relative_to(ROOT)}: {'filled' if after != before else 'as it was'}")


def cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def busy_seconds() -> float | None:
    """Seconds that all processors together have worked since the machine started, where Linux tells."""
    try:
        user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    except (OSError, ValueError, IndexError):
        return None
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")

"""What all benchmarks share: rows in a CSV or JSON file, the READMEs' tables made from them, and the command line.

A row is a frozen dataclass; one that is measured again replaces the row with the same key and keeps its place. So a run
can be stopped and continued, and a README's tables can be checked against the CSV.
"""

import argparse
import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lowbit.files import write_atomically

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build"
READMES = (HERE / "README.md",)

R = TypeVar("R")


@dataclass(frozen=True)
class Results(Generic[R]):
    """The rows of one benchmark, in `results/NAME.csv`, and its tables, marked by NAME in the READMEs.

    Args:
        name: of the benchmark.
        row: the dataclass of its rows; fields are columns.
        key: columns that identify a row.
        order: sort key of a row; by default rows stay in the order in which they were first measured.
    """

    name: str
    row: type[R]
    key: tuple[str, ...]
    order: Callable[[R], Any] | None = None

    @property
    def csv(self) -> Path:
        """The file in the repository."""
        return HERE / "results" / f"{self.name}.csv"

    @property
    def build(self) -> Path:
        """Folder for what the benchmark makes."""
        return BUILD / self.name

    def path(self, *, quick: bool) -> Path:
        """Where rows are written: quick ones are not kept in the repository."""
        return self.build / "quick.csv" if quick else self.csv

    def read(self, path: Path | None = None) -> list[R]:
        """All rows; none if there is no such file."""
        path = path or self.csv
        if not path.exists():
            return []
        fields = {field.name: str(field.type) for field in dataclasses.fields(self.row)}  # type: ignore[arg-type]

        def value(name: str, text: str) -> object:
            of = fields[name]
            if "str" in of:
                return text
            return None if not text else int(text) if "int" in of else float(text)

        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            return [self.row(**{k: value(k, v) for k, v in line.items() if k in fields}) for line in lines]

    def add(self, new: Iterable[R], path: Path | None = None) -> list[R]:
        """Write rows, whole or not at all; one replaces an earlier row with the same key."""
        path = path or self.csv
        rows = self.merged(self.read(path), new)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in dataclasses.fields(self.row))  # type: ignore[arg-type]
        for row in rows:
            values = dataclasses.astuple(row)  # type: ignore[call-overload]
            # Six digits of numbers that are not whole.
            writer.writerow(f"{v:.6g}" if isinstance(v, float) else "" if v is None else v for v in values)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.getvalue().encode())
        return rows

    def merged(self, rows: Iterable[R], new: Iterable[R]) -> list[R]:
        """`rows` with `new` in the place of those with the same key, in order."""
        by_key = {tuple(getattr(row, name) for name in self.key): row for row in (*rows, *new)}
        return list(by_key.values()) if self.order is None else sorted(by_key.values(), key=self.order)

    def filled(self, text: str, table: Callable[[str | None], str]) -> str:
        """`text` with a table between `<!-- NAME table -->` (or `<!-- NAME table: which -->`) and its end."""
        name = self.name
        markers = re.compile(rf"(<!-- {name} table(?:: ([\w ]+))? -->\n).*?(<!-- end {name} table -->)", re.DOTALL)
        return markers.sub(lambda place: f"{place[1]}\n{table(place[2])}\n{place[3]}", text)

    def fill_readmes(self, markdown: Callable[[Sequence[R], str | None], str]) -> None:
        """Put the tables of all rows into the READMEs."""
        rows = self.read()
        for path in READMES:
            before = path.read_text(encoding="utf-8")
            after = self.filled(before, lambda which: markdown(rows, which))
            if after != before:
                write_atomically(path, after.encode())
            print(f"{path.relative_to(ROOT)}: {'filled' if after != before else 'unchanged'}")


@dataclass(frozen=True)
class JsonResults(Results[R]):
    """The same in `results/NAME.json`: a list of objects, one a line."""

    def path(self, *, quick: bool) -> Path:
        """Where rows are written: quick ones are not kept in the repository."""
        return self.build / "quick.json" if quick else self.csv.with_suffix(".json")

    def read(self, path: Path | None = None) -> list[R]:
        """All rows; none if there is no such file."""
        path = path or self.path(quick=False)
        return [self.row(**values) for values in json.loads(path.read_bytes())] if path.exists() else []

    def add(self, new: Iterable[R], path: Path | None = None) -> list[R]:
        """Write rows, whole or not at all; one replaces an earlier row with the same key."""
        path = path or self.path(quick=False)
        rows = self.merged(self.read(path), new)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(_object(row) for row in rows)
        write_atomically(path, f"[\n{lines}\n]\n".encode())
        return rows


def _object(row: object) -> str:
    """A row in one line of JSON, with six digits of numbers that are not whole."""
    values = dataclasses.asdict(row)  # type: ignore[call-overload]
    return json.dumps({k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()}, allow_nan=False)


def position(item: object, known: Sequence[object]) -> int:
    """Index of an item in an order; unknown items come last."""
    return known.index(item) if item in known else len(known)


# --- Markdown -------------------------------------------------------------------------------------------------------


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def heading(texts: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """The first two lines of a table: columns of text, then columns of numbers."""
    return [line((*texts, *numbers)), "|" + "---|" * len(texts) + "--:|" * len(numbers)]


def failed(texts: Sequence[str], note: str, numbers: int) -> str:
    """The line of a row without numbers, which says why."""
    return f"| {' | '.join(texts)}: {escaped(note)} |{' |' * numbers}"


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def by_model(rows: Iterable[Any], model: str | None) -> dict[str, list[Any]]:
    """The rows of each model, or of one."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        if model in (None, row.model):
            groups.setdefault(row.model, []).append(row)
    return groups


# --- command line ---------------------------------------------------------------------------------------------------


def argument_parser(
    doc: str | None,
    *,
    models: Sequence[str] = (),
    default: Sequence[str] | None = None,
    quick: str | None = "few images, into build/ instead of results/",
    table: str | None = "only fill the tables in the READMEs from the CSV",
) -> argparse.ArgumentParser:
    """The options that benchmarks share; each adds its own.

    Args:
        doc: the script's docstring.
        models: names that it can measure: adds --data and --models.
        default: which of them it measures if none are named; all by default.
        quick: help of --quick, None for none.
        table: help of --table, None for none.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if models:
        folder = ROOT.parent / "shared" / "data"
        parser.add_argument("--data", type=Path, default=folder, help="folder of models and images")
        parser.add_argument("--models", nargs="+", choices=models, default=list(default or models))
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help=quick)
    if table is not None:
        parser.add_argument("--table", action="store_true", help=table)
    return parser


def add_steps(parser: argparse.ArgumentParser) -> None:
    """The options of a benchmark that makes files first, on any machine, and times them on a quiet one."""
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--only-make", action="store_true", help="make files that are not there, and time nothing")
    step.add_argument("--only-time", action="store_true", help="time the files that are there")

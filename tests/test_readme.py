"""The documentation's table, links and lists, held against what they speak of."""

import csv
import re
from pathlib import Path

import pytest

import lowbit

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
MOST_LINES = 150


def test_a_newcomer_is_done_with_it_soon():
    assert len(README.splitlines()) <= MOST_LINES


def rows_of_the_results_table():
    """The cells of each row, its tool and recipe first."""
    section = README.partition("## Results")[2].partition("## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_results_has_the_numbers_of_the_benchmarks():
    measured = {}
    for name, recipe, size in (("accuracy", "recipe", "file_bytes"), ("size", "setting", "bytes")):
        with (ROOT / "benchmarks" / "results" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["model"] == "resnet20":
                    values = [float(row[key] or "nan") for key in (size, "accuracy", "kl", "flips")]
                    measured.setdefault((row["tool"], row[recipe]), values)
    shown = rows_of_the_results_table()
    assert len(shown) > 5
    for tool, recipe, *cells in shown:
        file_bytes, accuracy, kl, flips = measured[tool, recipe]
        wanted = [f"{file_bytes / 1e3:.0f}", f"{accuracy:.2f}", f"{kl:.2g}", f"{flips:.0f}"]
        assert cells == wanted, (tool, recipe)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (ROOT / document).parent.joinpath(target).exists(), target


def test_every_decision_has_its_number_and_its_line_in_the_index():
    folder = ROOT / "docs" / "decisions"
    names = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:3]) for name in names] == list(range(1, len(names) + 1))
    titles = [(folder / name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for name in names]
    index = (folder / "README.md").read_text(encoding="utf-8")
    # The index is by subject.
    listed = re.findall(r"^- \[(.+)\]\((.+)\)$", index, re.MULTILINE)
    assert sorted(listed) == list(zip(titles, names, strict=True))


def test_every_public_name_is_there():
    for name in lowbit.__all__:
        assert getattr(lowbit, name) is not None


def test_tree_names_what_is_there():
    root = Path(lowbit.__file__).parent
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^    ([a-z]+)/", design, re.MULTILINE)) | set(re.findall(r", ([a-z]+)/", design))
    assert named == {path.name for path in root.iterdir() if (path / "__init__.py").exists()}

"""The documentation's examples, run as they stand; its table, links and lists, held against what they speak of."""

import csv
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import lowbit
import networks
from lowbit import cli
from lowbit.graph.preprocessing import METADATA_KEY, Preprocessing

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
MOST_LINES = 150


def named_as_by_torch(proto):
    """The network with the names that rules of the documentation speak of."""
    names = {"stem": "features.0.0", "narrow": "features.1.0", "deep": "features.1.1", "fc": "classifier"}
    tensors = {tensor.name: tensor.name for tensor in proto.graph.initializer}
    for tensor in proto.graph.initializer:
        owner, _, kind = tensor.name.partition(".")
        tensors[tensor.name] = f"{names[owner]}.{kind}" if owner in names else tensor.name
        tensor.name = tensors[tensor.name]
    for node in proto.graph.node:
        node.name = names.get(node.name, node.name)
        node.input[:] = [tensors.get(name, name) for name in node.input]
    return proto


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the README speaks of."""
    proto = named_as_by_torch(networks.residual_network())
    how = Preprocessing(networks.SIDE, networks.SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    proto.metadata_props.add(key=METADATA_KEY, value=how.to_json())
    onnx.save(proto, tmp_path / "mobilenet.onnx")
    generator = np.random.default_rng(0)
    for part in ("test", "calibration"):
        for label in range(networks.CLASSES):
            folder = tmp_path / part / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(3):
                pixels = generator.integers(0, 256, size=(networks.SIDE, networks.SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language, document="README.md"):
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_a_newcomer_is_done_with_it_soon():
    assert len(README.splitlines()) <= MOST_LINES


@pytest.mark.usefixtures("quick_measuring")
def test_python_example(workplace):
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    exec(compile(example, "README.md", "exec"), {})
    assert (workplace / "mobilenet-int8.onnx").exists()


@pytest.mark.usefixtures("quick_measuring")
def test_python_examples_of_data(workplace):
    (workplace / "mobilenet.onnx").rename("model.onnx")
    (example,) = blocks("python", "docs/data.md")
    exec(compile(example, "docs/data.md", "exec"), {})


def test_python_examples_of_rules(workplace):
    (example,) = blocks("python", "docs/rules.md")
    exec(compile(example, "docs/rules.md", "exec"), {})
    assert {path.name for path in workplace.glob("*.onnx")} > {"mixed.onnx", "function.onnx", "planned.onnx"}


@pytest.mark.parametrize("document", ["README.md", "docs/options.md", "docs/rules.md"])
def test_command_line_examples(workplace, capsys, document):
    pytest.importorskip("ai_edge_litert")
    (example,) = blocks("sh", document)
    commands = [shlex.split(line, comments=True) for line in example.splitlines() if line.strip()]
    for command in commands:
        assert command[0] == "lowbit"
        if command[1] in ("measure", "compare"):
            command += ["--runs", "2"]
        if command[1] in ("quantize", "compare", "search") or "--size" in command:
            command += ["--effort", "fast"]
        if command[1] == "search":
            command += ["--recipes", "float,linear8,linear4"]
        if command[1] == "compare":
            command += ["--recipes", "int8,cluster4"]
        before, sys.argv = sys.argv, command
        try:
            with pytest.raises(SystemExit) as stop:
                cli.main()
        finally:
            sys.argv = before
        assert not stop.value.code, (command, capsys.readouterr().err)
    if document == "README.md":
        shown = {command[1] for command in commands}
        assert shown >= {"inspect", "plan", "quantize", "measure", "compare", "diagnose", "search", "pack", "unpack"}
        assert (workplace / "results" / "report.html").exists()


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
    named = set(re.findall(r"^      ([a-z]+)/", README, re.MULTILINE))
    assert named == {path.name for path in root.iterdir() if (path / "__init__.py").exists()}

"""The README's examples, run as they stand."""

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

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the README speaks of."""
    proto = networks.residual_network()
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


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.usefixtures("quick_measuring")
def test_python_example(workplace):
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    exec(compile(example, "README.md", "exec"), {})
    assert (workplace / "mobilenet-int8.onnx").exists()


@pytest.mark.usefixtures("quick_measuring")
def test_command_line_example(workplace, capsys):
    pytest.importorskip("ai_edge_litert")
    (example,) = blocks("sh")
    commands = [shlex.split(line, comments=True) for line in example.splitlines() if line.strip()]
    assert {command[1] for command in commands} >= {"inspect", "plan", "quantize", "measure", "compare", "pack"}
    for command in commands:
        assert command[0] == "lowbit"
        if command[1] in ("measure", "compare"):
            command += ["--runs", "2"]
        if command[1] in ("quantize", "compare") or "--size" in command:
            command += ["--effort", "fast"]
        before, sys.argv = sys.argv, command
        try:
            with pytest.raises(SystemExit) as stop:
                cli.main()
        finally:
            sys.argv = before
        assert not stop.value.code, (command, capsys.readouterr().err)
    assert (workplace / "results" / "report.html").exists()


def test_every_public_name_is_there():
    for name in lowbit.__all__:
        assert getattr(lowbit, name) is not None


def test_tree_names_what_is_there():
    root = Path(lowbit.__file__).parent
    named = set(re.findall(r"^      ([a-z]+)/", README, re.MULTILINE))
    assert named == {path.name for path in root.iterdir() if (path / "__init__.py").exists()}

"""The examples of README and documentation, and the folder in which they run: an ordinary file, and images.

A block of `sh` or `python` runs, all blocks of a page in order and in one namespace, unless a comment stands before it:

    <!-- torch -->        runs where torch is installed (tests/training)
    <!-- keras -->        the same with Keras
    <!-- other tool -->   code of another tool, or for a device: only parsed
    <!-- not run: why --> only parsed
"""

import ast
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import networks
from lowbit import cli

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?:<!-- ([^\n]*) -->\n)?```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FRAMEWORKS = ("torch", "keras")


@dataclass(frozen=True)
class Example:
    """A block of code: `mark` is the comment before it, `line` where it begins."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def runs(self) -> bool:
        """Whether it runs at all."""
        return self.mark == "" or self.mark in FRAMEWORKS


def pages() -> dict[str, list[Example]]:
    """All pages that have examples, by their paths."""
    found = {}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        page = path.relative_to(ROOT).as_posix()
        if examples := examples_of(page):
            found[page] = examples
    return found


def examples_of(page: str) -> list[Example]:
    """The examples of one page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Example(page, text[: match.start(3)].count("\n") + 1, match[2], match[3], match[1] or "")
        for match in BLOCK.finditer(text)
    ]


def make_workplace(folder: Path) -> None:
    """What the pages speak of: `exported.onnx` as PyTorch writes it, and folders of images."""
    onnx.save(named_as_by_torch(networks.residual_network()), folder / "exported.onnx")
    generator = np.random.default_rng(0)
    for part in ("test", "calibration"):
        for label in range(networks.CLASSES):
            images = folder / part / f"class{label}"
            images.mkdir(parents=True)
            for index in range(4):
                pixels = generator.integers(0, 256, size=(networks.SIDE, networks.SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(images / f"{index}.png")


def named_as_by_torch(proto: onnx.ModelProto) -> onnx.ModelProto:
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


def run(example: Example, namespace: dict[str, object]) -> None:
    """Run a block as it stands; commands get options that make them quick."""
    if example.language == "python":
        code = "\n" * (example.line - 1) + example.text
        exec(compile(code, example.page, "exec"), namespace)
    else:
        for words in commands(example):
            run_command(words, f"{example.page}:{example.line}")


def commands(example: Example) -> list[list[str]]:
    """The words of each command."""
    lines = example.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_command(words: list[str], where: str) -> None:
    """`lowbit ...`, in this process."""
    assert words[0] == "lowbit", (where, words)
    before, sys.argv = sys.argv, [*words, *quick(words[1:])]
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main()
    finally:
        sys.argv = before
    # Twenty images cannot tell what is certain about a drop: that is what --strict is for.
    wanted = (0, 3) if {"--strict", "--max-drop"} <= set(words) else (0,)
    assert (stop.value.code or 0) in wanted, (where, words, stop.value.code)


def quick(words: list[str]) -> list[str]:
    """Options that make a command quick, as far as they are not given."""
    command = words[0]
    options = {}
    if command in ("measure", "compare"):
        options["--runs"] = "2"
    calibrates = command == "quantize" and "--calibration" in words
    if calibrates or command in ("compare", "search") or (command == "pack" and len(words) > 4):
        options["--effort"] = "fast"
    if command == "quantize":
        options["--steps"] = "none"
    if command == "search":
        options["--recipes"] = "float,linear8,linear4"
    if command == "compare":
        options["--recipes"] = "int8,cluster4"
    return [word for option, value in options.items() if option not in words for word in (option, value)]


def check(example: Example) -> None:
    """Code that does not run here is at least code."""
    if example.language == "python":
        ast.parse(example.text, example.page)
    else:
        assert commands(example), example

"""The architecture as a test: who may import whom, and where the heavy packages are allowed."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import lowbit

SOURCE = Path(lowbit.__file__).parent
# In pipeline order: a module imports from its own room and from those before it. One row a room.
ROOMS = (
    "printable",
    "errors",
    "extras",
    "leftovers",
    "files",
    "staging",
    "typed_json",
    "keeping",
    "ending",
    "switches",
    "progress",
    "processor",
    "graph",
    "schemes",
    "packing",
    "engines",
    "importing",
    "formats",
    "data",
    "certainty",
    "calibration",
    "quantization",
    "measurement",
    "diagnosis",
    "searching",
    "reports",
    "training",
    "console",
    "commands",
    "cli",
    "__main__",
)
# The same inside the rooms that are cut into stages.
STAGES = {
    "formats": (
        ("quantized_graph", "names", "ledger", "device_operators"), ("input_bytes", "devices", "record"),
        ("onnx", "litert"), ("opening", "size_report", "micro"), ("stored_cost",),
        ("file_form", "preparing", "running", "shortcuts"),
    ),
    "quantization": (
        ("solving", "equalizing"), ("planning",), ("passes",), ("quantized", "trial"), ("quantize",), ("rate",),
        ("pack",),
    ),
}  # fmt: skip
# Values that show themselves, and the progress of functions: their methods import from reports, a later room, when they
# are called; nothing else imports from a later one.
SHOWN = (
    "graph/model.py",
    "quantization/planning/plan.py",
    "quantization/quantized.py",
    "measurement/results.py",
    "progress.py",
)
FORMATS_ONLY = "formats stay at the edge: ask graph/ or formats/ for it"
# Package -> (where it may be imported, why not elsewhere).
BANNED = {
    # Networks that lowbit itself defines are written as ONNX where they are defined.
    "onnx": (("graph/", "importing/", "formats/", "measurement/microkernels.py", "training/export.py"), FORMATS_ONLY),
    "onnx_ir": (("graph/", "formats/"), FORMATS_ONLY),
    "google": (("graph/", "formats/"), FORMATS_ONLY),
    "onnxruntime": (("engines/",), "a runtime is opened through engines/"),
    "openvino": (("engines/",), "a runtime is opened through engines/"),
    "ai_edge_litert": (("engines/",), "a runtime is opened through engines/"),
    "highspy": (("searching/knapsack.py",), "the solver stays behind solve_knapsack"),
    "joblib": (("searching/workers.py",), "who works where is said in one place"),
    "distributed": (("searching/workers.py",), "who works where is said in one place"),
    "torch": (("training/", "importing/"), "quantizing must never need torch"),
    "onnxscript": (("training/",), "quantizing must never need torch"),
    "keras": (
        ("importing/keras.py", "importing/keras_process.py"),
        "other frameworks' models come in through importing/",
    ),
    "safetensors": (("importing/",), "other frameworks' models come in through importing/"),
    "tensorflow": ((), "not a dependency"),
    "torchvision": ((), "not a dependency"),
    "pickle": ((), "files are untrusted: no code execution"),
    "marshal": ((), "files are untrusted: no code execution"),
    "shelve": ((), "files are untrusted: no code execution"),
}
# Rooms that are arithmetic on arrays and know of nothing else.
NUMPY_ONLY = {
    "schemes": {"numpy", "ml_dtypes", "lowbit"},
    "packing": {"numpy", "lowbit", "constriction"},
    "certainty": {"numpy", "lowbit"},
}
# Imported when a function needs them, never by importing a module.
LAZY = {"torch": ("importing/",), "keras": ("importing/",), "safetensors": ("importing/",)}
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "PIL", "torch")


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imports(tree: ast.AST, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """Dotted names that a module imports, with the line; those under TYPE_CHECKING are no imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports(other, top_level=top_level)
            continue
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        else:
            yield from imports(node, top_level=top_level)


def room_of(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else ""


def violations(relative: str, text: str) -> list[str]:
    """What is wrong with one module, `relative` to the package."""
    found = []
    own = relative.split("/")[0].removesuffix(".py")
    tree = ast.parse(text)
    lazy_only = {name for name, _ in imports(tree)} - {name for name, _ in imports(tree, top_level=True)}
    for name, line in imports(tree):
        package, where = name.split(".")[0], f"{relative}:{line} imports {name}"
        if package == "lowbit":
            room = room_of(name)
            shows = room == "reports" and relative in SHOWN and name in lazy_only
            if room in ROOMS and own in ROOMS and ROOMS.index(room) > ROOMS.index(own) and not shows:
                found.append(f"{where}: {room} comes after {own}")
        elif package in BANNED:
            allowed, reason = BANNED[package]
            if not relative.startswith(allowed):
                found.append(f"{where}: {reason}")
        if own in NUMPY_ONLY and package not in NUMPY_ONLY[own] and package not in sys.stdlib_module_names:
            found.append(f"{where}: {own} is numpy only")
        if package in LAZY and relative.startswith(LAZY[package]) and name not in lazy_only:
            found.append(f"{where}: only inside a function")
        if own in ("cli", "commands") and package in HEAVY and name not in lazy_only:
            found.append(f"{where}: --help must be quick, import it inside the command")
    return found


def stage_violations(relative: str, text: str) -> list[str]:
    """Imports of one module that run against the order of the stages of its room, or between two of one stage."""
    room, _, rest = relative.partition("/")
    if room not in STAGES or rest == "__init__.py":
        return []
    places = {name: at for at, stage in enumerate(STAGES[room]) for name in stage}
    own = rest.split("/")[0].removesuffix(".py")
    problems = []
    for name, line in imports(ast.parse(text)):
        parts = name.split(".")
        if parts[:2] == ["lowbit", room] and parts[2] != own and places[parts[2]] >= places[own]:
            problems.append(f"{relative}:{line} imports {name}: {parts[2]} does not come before {own}")
    return problems


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_from_its_own_room_and_from_those_before(path):
    assert violations(path.relative_to(SOURCE).as_posix(), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_stage_imports_only_from_those_before(path):
    assert stage_violations(path.relative_to(SOURCE).as_posix(), path.read_text(encoding="utf-8")) == []


def test_the_order_of_stages_notices():
    assert stage_violations("quantization/solving/linear.py", "from lowbit.quantization.passes.steps import STEPS")
    assert stage_violations("formats/onnx/write.py", "from lowbit.formats.litert.write import to_litert")
    assert not stage_violations("quantization/passes/steps.py", "from lowbit.quantization.solving.gptq import gptq")


@pytest.mark.parametrize("room", STAGES)
def test_every_part_of_a_room_has_a_stage(room):
    parts = {path.stem for path in (SOURCE / room).iterdir() if not path.name.startswith("_")}
    assert parts == {name for stage in STAGES[room] for name in stage}


def test_every_folder_and_module_is_a_room():
    found = {path.stem if path.is_file() else path.name for path in SOURCE.iterdir() if not path.name.startswith("_")}
    found = {name for name in found if (SOURCE / f"{name}.py").exists() or (SOURCE / name / "__init__.py").exists()}
    assert found <= set(ROOMS)


@pytest.mark.parametrize(
    ("relative", "text"),
    [
        ("graph/load.py", "from lowbit.quantization.planning.plan import plan"),
        ("graph/load.py", "def f():\n    import torch"),
        ("importing/torch.py", "import torch"),
        ("importing/table.py", "def f():\n    import keras"),
        ("schemes/linear.py", "import onnx"),
        ("schemes/linear.py", "from PIL import Image"),
        ("calibration/statistics.py", "def f():\n    from onnx_ir import Value"),
        ("measurement/speed.py", "import onnxruntime as ort"),
        ("data/images.py", "import pickle"),
        ("quantization/planning/plan.py", "try:\n    import torch\nexcept ImportError:\n    pass"),
        ("cli.py", "import numpy as np"),
        ("commands/measuring.py", "import numpy as np"),
    ],
)
def test_the_rule_notices(relative, text):
    assert violations(relative, text)


def test_the_rule_lets_pass():
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import torch"
    assert violations("importing/torch.py", text) == []
    assert violations("formats/onnx/write.py", "import onnx_ir as ir\nfrom lowbit.graph.model import Model") == []


@pytest.mark.parametrize("lock", ["core", "test", "train"])
def test_every_dependency_is_locked_wherever_the_core_is_installed(lock):
    root = SOURCE.parents[1]
    wanted = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    locked = {line.split("==")[0] for line in (root / "requirements" / f"{lock}.txt").read_text().splitlines()}
    missing = {re.split("[<>=~]", name)[0] for name in wanted} - locked
    assert not missing, "run make lock"


def test_opening_a_file_does_not_import_what_edits_one():
    """Every file is measured in a process of its own, and these packages take longer to import than all else."""
    code = "import lowbit.engines, sys; sys.exit(len({'onnx', 'onnx_ir', 'sympy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

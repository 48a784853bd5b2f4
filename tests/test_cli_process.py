"""The command line in processes of its own, and with what it measures of this machine."""

import json
import subprocess
import sys

import pytest

from lowbit.engines import installed_engines
from test_cli import SIZE, folder, run

__all__ = ["folder"]


def test_every_option_is_explained():
    done = subprocess.run(
        [sys.executable, "-m", "lowbit.cli", "compare", "--help"], capture_output=True, text=True, check=True
    )
    assert "--calibration" in done.stdout


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['lowbit', '--help']\nfrom lowbit import cli\n"
    code += "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
    code += "print(sorted({'numpy', 'onnx', 'onnxruntime', 'PIL', 'torch', 'rich.progress'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_measure_says_what_memory_each_file_takes(folder, capsys):
    how = ("--data", folder / "test", *SIZE, "--runs", "2", "--json")
    code, out, _ = run("measure", folder / "net.onnx", *how, capsys=capsys)
    (row,) = json.loads(out)["rows"]
    assert code == 0
    assert row["peak_memory_bytes"] >= row["load_memory_bytes"] > 0


def test_inspect_speed_says_it_of_several_engines(folder, capsys):
    pytest.importorskip("ai_edge_litert")
    arguments = ("inspect", folder / "net.onnx", "--speed", "--engine")
    code, out, _ = run(*arguments, "onnxruntime,litert", capsys=capsys)
    assert code == 0
    assert all(out.count(f"Measured with {engine}") == 1 for engine in ("onnxruntime", "litert"))
    code, out, _ = run(*arguments, "litert", "--json", capsys=capsys)
    assert code == 0
    assert json.loads(out)["peaks"]["engine"] == "litert"
    code, out, _ = run(*arguments, "auto", "--json", capsys=capsys)
    engines = json.loads(out)["engines"]
    assert code == 0
    assert list(engines) == list(installed_engines())
    assert all(engines[name]["peaks"]["engine"] == name for name in engines)

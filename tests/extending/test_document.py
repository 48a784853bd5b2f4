"""docs/extending.md, made for real: its diffs are applied to a copy of lowbit, and what they add is used."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lowbit
import networks

ROOT = Path(__file__).resolve().parents[2]
DIFF = re.compile(r"```diff\n--- (\S+)\n\+\+\+ b/(\S+)\n(.*?)```", re.DOTALL)

# Uses every addition once and says so; run by a Python whose lowbit is the changed copy.
SCRIPT = """
import json, sys
import numpy as np, onnx, pytest
import conftest, lowbit, networks
from lowbit.cli import app
from lowbit.engines import open_session

conftest.measure_quickly(pytest.MonkeyPatch())  # memory by a new engine: test_new_engine
model, x = lowbit.load(networks.residual_network(first=48)), networks.inputs(24)
onnx.save(networks.residual_network(first=48), "net.onnx")
np.savez("seen.npz", x=x)
np.savez("test.npz", x=networks.inputs(8, seed=2))

quantized = lowbit.quantize(model, "powers4", calibration=x, effort="fast")
assert {type(codes).__name__ for codes in quantized.graph.weights.values()} == {"PowerCodes"}
assert lowbit.Plan.from_json(json.loads(json.dumps(quantized.plan.to_json()))) == quantized.plan
decoded = {name: codes.decode() for name, codes in quantized.graph.weights.items()}
exact = model.with_weights(decoded | dict(quantized.graph.float_values)).to_bytes()
answers = [open_session(each, threads=1).run({"x": x})["logits"] for each in (quantized.to_bytes(), exact)]
np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-6)
print("scheme, recipe")

quantize = ["quantize", "net.onnx", "--calibration", "seen.npz", "--effort", "fast", "-o", "q.onnx"]
app([*quantize, "-r", "int8", "--ranges", "halved"], standalone_mode=False)
print("range rule")
app([*quantize, "-r", "int8", "--steps", "half-biases", "--json"], standalone_mode=False)
print("step")
measure = ["measure", "net.onnx", "q.onnx", "--data", "test.npz", "--runs", "1", "--engine", "onnxruntime,unoptimized"]
app([*measure, "--json"], standalone_mode=False)
print("engine, column")

labels = answers[0] + 0.1 * np.random.default_rng(0).normal(size=answers[0].shape)
np.savez("directions.npz", x=x, labels=labels)
app([*measure[:3], "--data", "directions.npz", "--runs", "1", "--json", "--task", "directions"], standalone_mode=False)
print("task")
"""


def apply(source: str, hunks: str) -> str:
    """A text with the hunks of a diff applied, each found by the lines that it keeps and removes."""
    at = 0
    for hunk in hunks.split("@@\n")[1:]:
        lines = [line or " " for line in hunk.splitlines()]
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
        after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
        found = source.find(before, at)
        assert found >= 0, f"these lines are not there, or not in this order:\n{before}"
        source = source[:found] + after + source[found + len(before) :]
        at = found + len(after)
    return source


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the script printed, after all diffs of the document."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(Path(lowbit.__file__).parent, folder / "src" / "lowbit")
    diffs = DIFF.findall((ROOT / "docs" / "extending.md").read_text(encoding="utf-8"))
    assert len(diffs) == 11
    for before, path, hunks in diffs:
        target = folder / path
        assert target.exists() == (before != "/dev/null")
        target.write_text(apply(target.read_text(encoding="utf-8") if target.exists() else "", hunks), encoding="utf-8")
    paths = os.pathsep.join([str(folder / "src"), str(Path(networks.__file__).parent)])
    changed = os.environ | {"PYTHONPATH": paths}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=changed, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.mark.parametrize("what", ["scheme, recipe", "range rule", "step", "engine, column", "task"])
def test_every_addition_works(said, what):
    assert f"{what}\n" in said


def test_the_new_column_and_engine_are_in_the_results(said):
    assert '"file_kib"' in said
    assert '"unoptimized"' in said
    assert "biases in half precision" in said
    assert '"task": "directions"' in said
    assert '"angle": ' in said

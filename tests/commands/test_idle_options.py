"""Options that would do nothing are refused, in a sentence that says what they need."""

import numpy as np
import pytest

import networks
from lowbit.graph.load import load
from lowbit.graph.save import save
from test_cli import run


@pytest.fixture
def names(tmp_path):
    save(load(networks.residual_network()), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=networks.inputs(24, seed=1))
    return {"MODEL": tmp_path / "net.onnx", "DATA": tmp_path / "data.npz", "OUT.onnx": tmp_path / "a.onnx",
            "OUT.lowbit": tmp_path / "a.lowbit"}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "option", "add"),
    [
        ("search MODEL --data DATA --max-drop 9 --engine openvino -o OUT.onnx", "--engine", "--max-latency"),
        ("search MODEL --data DATA --max-size 9KB --confidence 0.9 -o OUT.onnx", "--confidence", "--max-drop"),
        ("search MODEL --data DATA --max-size 9KB --minimize size -o OUT.onnx", "--minimize", "--max-drop"),
        ("quantize MODEL -r linear8 --feed x=ones -o OUT.onnx", "--feed", "--calibration"),
        ("quantize MODEL -r linear8 --limit 3 -o OUT.onnx", "--limit", "--calibration"),
        ("quantize MODEL -r linear4 --effort best -o OUT.onnx", "--effort", "--calibration"),
        ("pack MODEL --size 6KB --limit 3 -o OUT.lowbit", "--limit", "--calibration"),
        ("pack MODEL --size 6KB --feed x=ones -o OUT.lowbit", "--feed", "--calibration or --data"),
        ("pack MODEL --size 6KB --strict -o OUT.lowbit", "--strict", "--max-drop"),
        ("pack MODEL --effort fast -o OUT.lowbit", "--effort", "--size"),
    ],
)
def test_what_has_no_effect_is_refused(line, option, add, names, capsys):
    code, _, error = run(*(str(names.get(word, word)) for word in line.split()), capsys=capsys)
    assert code == 2
    assert f"Error: {option} has no effect without" in " ".join(error.split())
    assert f"Add {add}" in " ".join(error.split())
    assert not names["OUT.onnx"].exists()
    assert not names["OUT.lowbit"].exists()

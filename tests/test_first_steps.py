"""The notebook of the first steps, cell by cell, with few images; and that its outputs are kept."""

import json
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "first_steps.ipynb"


def test_all_cells_run_in_order(monkeypatch, tmp_path, quick_measuring):
    monkeypatch.syspath_prepend(str(NOTEBOOK.parent))
    from run import run

    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    small = {"RECIPES": ["linear8"], "IMAGES": {"calibration": 8, "test": 12}, "OUT": str(tmp_path)}
    names = run(notebook, small)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["float.onnx", "linear8.onnx"]
    assert names["best"].name == "linear8"


def test_its_outputs_are_stored_and_belong_to_its_cells():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in codes] == list(range(1, len(codes) + 1))
    assert all(cell["outputs"] for cell in codes[1:])
    outputs = [each for cell in codes for each in cell["outputs"]]
    assert not [each for each in outputs if each["output_type"] == "error"]
    assert json.dumps(outputs).count("image/png") == 2

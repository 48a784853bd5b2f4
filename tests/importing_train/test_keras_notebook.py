"""The notebook of the study from Keras, cell by cell, at a size that tests can afford."""

import json
import os
import re
from pathlib import Path

import pytest

os.environ["KERAS_BACKEND"] = "torch"
pytest.importorskip("keras", reason="keras is not installed")
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("default")
NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "keras_study.ipynb"


def test_all_cells_run_in_order(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(NOTEBOOK.parent))
    from run import run

    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    images = {"train": 32, "calibration": 16, "test": 24}
    recipes = ["int8", "linear16"]
    names = run(notebook, {"IMAGES": images, "SIDE": 32, "RECIPES": recipes, "OUT": str(tmp_path)})
    assert names["apart"] < 1e-5
    assert [row.recipe for row in names["comparison"].rows] == ["float", *recipes]
    sizes = {row.recipe: row.file_bytes for row in names["comparison"].rows}
    assert sizes["float"] > 1.9 * sizes["linear16"] > 1.8 * sizes["int8"]
    layers = [node for node in names["decided"].nodes if node.op in ("Conv", "Gemm")]
    assert len(layers) == 53
    assert all(node.arithmetic == "integer" for node in layers)


def test_its_outputs_are_stored_and_say_what_it_promises():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in codes] == list(range(1, len(codes) + 1))
    assert all(cell["outputs"] for cell in codes[1:])
    texts = json.dumps([cell["outputs"] for cell in codes])
    assert "equal those of Keras to 1e-5: True" in texts
    assert float(re.search(r"accuracy on test images: ([\d.]+)%", texts)[1]) > 90
    assert "53 of 53 layers compute in integers" in texts

"""The notebook of the detector, cell by cell, at a size that tests can afford: trained here, and as it was shipped."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pycocotools")

pytestmark = pytest.mark.filterwarnings("default")  # of torch's exporter
NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "detector.ipynb"


@pytest.fixture(autouse=True)
def one_thread():
    """So few pictures keep one core busy; threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(monkeypatch):
    """The runner that keeps a notebook's outputs."""
    monkeypatch.syspath_prepend(str(NOTEBOOK.parent))
    from run import run

    return run


@pytest.mark.parametrize("train", [True, False])
def test_all_cells_run_in_order(run, tmp_path, train):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    small = {"PICTURES": {"train": 32, "calibration": 32, "test": 12}, "EPOCHS": 2, "TRAIN": train, "EFFORT": "fast"}
    names = run(notebook, {**small, "OUT": str(tmp_path)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["float.onnx", "int8.onnx", "linear4.onnx"]
    assert [row.name for row in names["result"].rows] == ["float", "int8", "linear4"]
    assert names["result"].task == "detection"
    assert all("map" in row.scores for row in names["result"].rows)
    if not train:  # two steps of training tell nothing apart that could stay whole
        quality = names["quality"]["int8"]
        assert quality["scores"] > quality["boxes"] - 3
    texts = json.dumps([cell.get("outputs") for cell in notebook["cells"]])
    assert texts.count("image/png") == 2
    assert "mAP@0.5" in texts


def test_its_outputs_are_stored_and_belong_to_its_cells():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in codes] == list(range(1, len(codes) + 1))
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert "parameters" in codes[0]["metadata"]["tags"]
    assert all(cell["outputs"] for cell in codes[1:])
    assert not [each for cell in codes for each in cell["outputs"] if each["output_type"] == "error"]

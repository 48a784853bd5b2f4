"""Tasks on the command line: labels in files of their own, and the examples of docs/tasks.md as they stand."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import lowbit
from graphs import make, make_node
from lowbit import cli
from lowbit.graph.preprocessing import METADATA_KEY, Preprocessing
from task_networks import detection, embeddings, segmentation

TASKS_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
COUNT = 6


def command(text: str, monkeypatch, capsys) -> str:
    """What a command printed."""
    monkeypatch.setattr(sys, "argv", shlex.split(text))
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr()
    assert not stop.value.code, printed.err
    return printed.out


def saved(model: onnx.ModelProto, side: int, path: str) -> None:
    how = Preprocessing(side, side, mean=(0.5,) * 3, std=(0.25,) * 3)
    model.metadata_props.add(key=METADATA_KEY, value=how.to_json())
    onnx.save(model, path)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """The files that docs/tasks.md speaks of."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, side in (("val2017", 32), ("images", 8), ("more", 8)):
        Path(folder).mkdir()
        for i in range(COUNT):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{i}.png")
    saved(detection().model, 32, "yolo.onnx")
    lowbit.quantize(lowbit.load("yolo.onnx"), "linear8").save("yolo-int8.onnx")
    boxes = [
        {"id": i, "image_id": i, "category_id": 1 + i % 3, "bbox": [4.0, 4.0, 16.0, 16.0], "area": 256.0}
        for i in range(COUNT)
    ]
    data = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 32, "height": 32} for i in range(COUNT)],
        "categories": [{"id": k, "name": str(k)} for k in (1, 2, 3)],
        "annotations": boxes,
    }
    Path("instances_val2017.json").write_text(json.dumps(data))
    saved(segmentation().model, 8, "unet.onnx")
    Path("masks").mkdir()
    for i in range(COUNT):
        Image.fromarray(rng.integers(0, 4, (8, 8), dtype=np.uint8)).save(f"masks/{i}.png")
    faces = embeddings()
    onnx.save(faces.model, "arcface.onnx")
    lowbit.quantize(lowbit.load("arcface.onnx"), "linear4").save("small.onnx")
    np.savez("faces.npz", x=faces.inputs["x"], labels=faces.labels)
    return tmp_path


@pytest.mark.usefixtures("quick_measuring")
def test_the_examples_of_the_page(workplace, monkeypatch, capsys):
    pytest.importorskip("pycocotools")
    (example,) = re.findall(r"```sh\n(.*?)```", TASKS_PAGE, re.DOTALL)
    shown = []
    for line in example.splitlines():
        more = " --recipes linear8 --effort fast" if " compare " in line else ""
        shown.append(json.loads(command(f"{line} --runs 0 --json{more}", monkeypatch, capsys)))
    assert [each["task"] for each in shown] == ["detection", "segmentation", "embeddings"]
    assert [set(each["rows"][1]["scores"]) for each in shown] == [
        {"map", "map50"}, {"miou", "pixel_accuracy"}, {"recall1", "recall5", "cosine"},
    ]  # fmt: skip
    assert "mIoU" in (workplace / "results" / "report.html").read_text(encoding="utf-8")


def test_the_metric_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weights = {"w": np.random.default_rng(0).normal(size=(6, 40))}
    onnx.save(make([make_node("MatMul", "x w", "y")], {"x": ["n", 6]}, {"y": ["n", 40]}, weights), "float.onnx")
    lowbit.quantize(lowbit.load("float.onnx"), "linear8").save("int8.onnx")
    x = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    data = lowbit.open_data({"x": x, "labels": np.zeros((5, 40))}, lowbit.load("float.onnx"))
    (example,) = re.findall(r"```python\n(.*?)```", TASKS_PAGE, re.DOTALL)
    measured = lowbit.measure
    monkeypatch.setattr(lowbit, "measure", lambda *a, **k: measured(*a, **k, runs=0))
    exec(compile(example, "docs/tasks.md", "exec"), {"data": data})
    assert f"('float', {np.abs(x @ weights['w'].astype(np.float32)).max():.3}"[:12] in capsys.readouterr().out


def test_labels_by_yolo_text_say_the_same_as_coco(workplace, monkeypatch, capsys):
    pytest.importorskip("pycocotools")
    Path("labels").mkdir()
    for i in range(COUNT):
        Path(f"labels/{i}.txt").write_text(f"{i % 3} 0.375 0.375 0.5 0.5\n")
    found = []
    for labels in ("labels", "instances_val2017.json"):
        text = f"lowbit measure yolo.onnx yolo-int8.onnx --data val2017 --labels {labels} --runs 0 --json"
        found.append([row["scores"] for row in json.loads(command(text, monkeypatch, capsys))["rows"]])
    assert found[0] == found[1]


def test_a_task_that_is_not_there_or_does_not_fit(workplace, monkeypatch, capsys):
    for task, said in (("speech", "there is no task 'speech'"), ("regression", "not those of the task 'regression'")):
        monkeypatch.setattr(sys, "argv", shlex.split(f"lowbit measure arcface.onnx --data faces.npz --task {task}"))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        assert said in capsys.readouterr().err

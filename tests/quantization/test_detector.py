"""The built-in detector as int8: what it finds stays as good as float's, in every engine, on pictures never seen."""

import numpy as np
import pytest

import lowbit
from lowbit.data.hands_in_pictures import hand_pictures
from lowbit.engines import installed_engines, open_session
from lowbit.formats.file_form import FileForm
from lowbit.measurement.tasks import Case, detection
from lowbit.training.assets import built_in_detector

FORMS = {"onnxruntime": "onnx", "openvino": "openvino", "litert": "litert"}
LOSS = 0.02  # of mAP
CLOSE = 3.0  # decibels that scores may be behind boxes


@pytest.fixture(scope="module")
def model():
    return lowbit.load(built_in_detector())


@pytest.fixture(scope="module")
def test_data(model):
    pictures = hand_pictures("test", 48)
    return lowbit.open_data(pictures.images, model, labels=pictures.labels)


@pytest.fixture(scope="module")
def quantized(model):
    return lowbit.quantize(model, "int8", calibration=hand_pictures("calibration", 48).images, effort="fast")


def outputs(file, engine, data):
    session = open_session(file.read_bytes(), engine=engine, threads=1)
    found = [session.run(batch.inputs) for batch in data.batches(1 if engine == "litert" else 60)]
    return np.concatenate([next(iter(each.values())) for each in found])


def decibels(wanted, given):
    return 10 * np.log10(np.square(wanted - wanted.mean(axis=0)).sum() / np.square(given - wanted).sum())


@pytest.mark.usefixtures("quick_measuring")
def test_map_of_the_file_is_that_of_float(quantized, test_data, tmp_path):
    pytest.importorskip("pycocotools")
    file = quantized.save(tmp_path / "int8.onnx")
    conditions = lowbit.Conditions(runs=0, with_memory=False)
    result = lowbit.measure([built_in_detector(), file], test_data, conditions=conditions)
    assert result.task == "detection"
    floats, integers = result.rows
    assert floats.scores["map50"] > 0.75  # 0.85 on 300 pictures
    for name in ("map", "map50"):
        assert integers.scores[name] > floats.scores[name] - LOSS, name
    assert integers.file_bytes < floats.file_bytes / 2.5
    assert floats.file_bytes < 500_000


@pytest.mark.parametrize("engine", FORMS)
def test_scores_are_as_close_as_boxes(quantized, test_data, engine, tmp_path):
    if engine not in installed_engines():
        pytest.skip(f"{engine} is not installed")
    suffix = "tflite" if engine == "litert" else "onnx"
    file = quantized.save(tmp_path / f"int8.{suffix}", FileForm(to=FORMS[engine]))
    wanted, given = outputs(built_in_detector(), "onnxruntime", test_data), outputs(file, engine, test_data)
    boxes = decibels(wanted[..., :4], given[..., :4])
    for name, at in (("objectness", slice(4, 5)), ("classes", slice(5, None)), ("scores", slice(4, None))):
        assert decibels(wanted[..., at], given[..., at]) > boxes - CLOSE, name


def test_no_integers_stand_between_the_heads_and_the_output(quantized):
    """There scores would be rounded to the steps of boxes in pixels."""
    arithmetic = {node.node: node.arithmetic for node in quantized.plan.nodes}
    (end,) = quantized.graph.model.graph.outputs
    node, ops = end.producer(), []
    while node.op_type != "Concat":
        ops.append(node.op_type)
        assert arithmetic[node.name] == "float"
        node = node.inputs[0].producer()
    assert ops == ["Transpose", "Reshape"]
    assert arithmetic[node.name] == "float"
    assert {arithmetic[part.producer().name] for part in node.inputs} == {"float"}


def test_map_without_some_pictures_is_that_of_the_others(model, test_data):
    pytest.importorskip("pycocotools")
    few = test_data.subset(24)
    found = {"output": outputs(built_in_detector(), "onnxruntime", few)}
    case = Case(found, few.targets, found, (96, 96))
    groups = [np.arange(5), np.arange(5, 24, 2), np.array([], int)]
    for group, given in zip(groups, detection.without(case, groups), strict=True):
        kept = np.setdiff1d(np.arange(24), group)
        part = {name: answer[kept] for name, answer in found.items()}
        wanted = detection.measure(Case(part, [few.targets[place] for place in kept], part, case.size))
        assert given == pytest.approx(wanted)

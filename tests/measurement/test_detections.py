"""Every form of a detector's outputs says the same, and mAP is pycocotools' own, by hand where that can be done."""

import sys

import numpy as np
import pytest

from lowbit.errors import DataError
from lowbit.measurement.judging import case_of
from lowbit.measurement.prediction import Answers
from lowbit.measurement.tasks import TASKS, chosen_task, detection
from lowbit.measurement.tasks.detections import are_detections, detections, overlaps

BOXES = np.array([[2, 4, 12, 20], [30, 30, 50, 60], [31, 30, 50, 60], [5, 40, 25, 44]], np.float64)
SCORES = np.array([0.9, 0.8, 0.7, 0.6])
CLASSES = np.array([1, 0, 0, 2])
KEPT = [0, 1, 3]  # the third box lies on the second, with the same class
SIZE = (64, 64)


def per_class() -> np.ndarray:
    scores = np.zeros((4, 3))
    scores[np.arange(4), CLASSES] = SCORES
    return scores


def center_and_size(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def many(x: np.ndarray, count: int = 40) -> np.ndarray:
    """With rows of zeros behind, as a head has many places."""
    return np.concatenate([x, np.zeros((count - len(x), x.shape[1]))])


FORMS = {
    "torchvision": lambda: {"boxes": BOXES[KEPT], "labels": CLASSES[KEPT], "scores": SCORES[KEPT]},
    "without names": lambda: {"a": BOXES[KEPT], "b": CLASSES[KEPT], "c": SCORES[KEPT]},
    "classes as floats": lambda: {"b": BOXES[KEPT], "classes": CLASSES[KEPT] * 1.0, "conf": SCORES[KEPT]},
    "TensorFlow": lambda: {
        "detection_boxes": BOXES[KEPT][:, [1, 0, 3, 2]],
        "detection_classes": CLASSES[KEPT] * 1.0,
        "detection_scores": SCORES[KEPT],
        "num_detections": np.float64(3),
    },
    "head": lambda: {"boxes": BOXES, "confidences": per_class()},
    "rows of six": lambda: {"y": np.concatenate([BOXES, SCORES[:, None], CLASSES[:, None]], axis=1)[KEPT]},
    "rows of seven": lambda: {
        "y": np.concatenate([np.zeros((4, 1)), BOXES, CLASSES[:, None], SCORES[:, None]], axis=1)[KEPT]
    },
    "YOLOv8": lambda: {"y": many(np.concatenate([center_and_size(BOXES), per_class()], axis=1)).T},
    "YOLOv5": lambda: {"y": many(np.concatenate([center_and_size(BOXES), np.ones((4, 1)), per_class()], axis=1))},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(form):
    outputs = {
        name: np.asarray(x, np.float32 if np.asarray(x).dtype.kind == "f" else np.int64)[None]
        for name, x in FORMS[form]().items()
    }
    assert are_detections(outputs)
    (found,) = detections(outputs, outputs)
    order = np.argsort(-found.scores)
    np.testing.assert_allclose(found.boxes[order], BOXES[KEPT], atol=1e-4)
    np.testing.assert_allclose(found.scores[order], SCORES[KEPT], atol=1e-6)
    np.testing.assert_array_equal(found.classes[order], CLASSES[KEPT])


@pytest.mark.parametrize(
    "outputs", [{"y": np.zeros((2, 3))}, {"y": np.zeros((2, 3, 8, 8))}, {"b": np.zeros((2, 6, 4))}]
)
def test_what_is_no_detector(outputs):
    assert not are_detections(outputs)


def test_overlaps_by_hand():
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [2, 2, 1, 1]])
    expected = [[1, 1 / 7, 0, 0], [1 / 7, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(overlaps(boxes, boxes), expected)


def measured(found, truth, reference=None, size=SIZE):
    answers = Answers(found, None, tuple(truth))
    reference = answers if reference is None else Answers(reference, None, tuple(truth))
    task = chosen_task(None, case_of(reference, reference, size))
    assert task is TASKS["detection"]
    return task.measure(case_of(answers, reference, size))


def as_outputs(images):
    """Selected boxes of each image, as many as it has: lists."""
    return {
        "boxes": [np.asarray(boxes, np.float32).reshape(-1, 4) for boxes, _, _ in images],
        "scores": [np.asarray(scores, np.float32) for _, scores, _ in images],
        "labels": [np.asarray(classes, np.int64) for _, _, classes in images],
    }


TRUTH = [
    {"boxes": BOXES[[0, 1]], "labels": np.array([0, 1])},
    {"boxes": BOXES[[3]], "labels": np.array([0])},
    {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, np.int64)},
]


def test_average_precision_by_hand():
    """Class 0: hit, miss, hit by falling score, of two labels: precision 1 up to recall 1/2, then 2/3. Class 1: 1."""
    pytest.importorskip("pycocotools")
    far = BOXES[0] + 40
    images = [([BOXES[0], BOXES[1]], [0.9, 0.8], [0, 1]), ([BOXES[3], far], [0.5, 0.7], [0, 0]), ([], [], [])]
    scores = measured(as_outputs(images), TRUTH)
    first = (51 * 1 + 50 * 2 / 3) / 101  # 101 recalls, of which 0 to 0.5 are reached by the first hit
    assert scores["map50"] == pytest.approx((first + 1) / 2, abs=1e-6)
    assert scores["map"] == pytest.approx((first + 1) / 2, abs=1e-6)


def test_boxes_a_little_off_count_at_low_overlaps_only():
    pytest.importorskip("pycocotools")
    moved = BOXES[0] + [0, 0, 2, 0]  # 10 of 12 columns: overlap 0.833, so 7 of 10 thresholds
    truth = [{"boxes": BOXES[[0]], "labels": np.array([0])}]
    scores = measured(as_outputs([([moved], [0.9], [0])]), truth)
    assert scores == {"map": pytest.approx(0.7), "map50": pytest.approx(1)}


@pytest.mark.parametrize("crowd", [False, True])
def test_pycocotools_own_evaluation_of_the_same_boxes(crowd):
    """Written as COCO files would be, pixels and corners, and evaluated without any of this code."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(0)
    truth, images, annotations, results = [], [], [], []
    for image in range(20):
        corners = rng.uniform(0, 40, (5, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 24, (5, 2))], axis=1)
        classes = rng.integers(0, 3, 5)
        truth.append({"boxes": boxes, "labels": classes, "iscrowd": np.arange(5) == 4 if crowd else np.zeros(5, bool)})
        found = boxes + rng.normal(0, 2, boxes.shape)
        kinds = np.where(rng.random(5) < 0.2, (classes + 1) % 3, classes)
        scores = rng.random(5).astype(np.float32)
        images.append((found, scores, kinds))
        for i in range(5):
            x, y, right, below = boxes[i]
            box = [x, y, right - x, below - y]
            annotations.append({"id": len(annotations) + 1, "image_id": image + 1, "category_id": int(classes[i]),
                                "bbox": box, "area": box[2] * box[3], "iscrowd": int(crowd and i == 4)})  # fmt: skip
            x, y, right, below = np.float32(found[i]).astype(float)
            results.append({"image_id": image + 1, "category_id": int(kinds[i]), "bbox": [x, y, right - x, below - y],
                            "score": float(scores[i])})  # fmt: skip
    data = coco.COCO()
    data.dataset = {"info": {}, "images": [{"id": i} for i in range(1, 21)], "annotations": annotations,
                    "categories": [{"id": k} for k in range(3)]}  # fmt: skip
    data.createIndex()
    theirs = evaluation.COCOeval(data, data.loadRes(results), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    ours = measured(as_outputs(images), truth)
    assert 0.1 < ours["map"] < ours["map50"] < 1
    assert (ours["map"], ours["map50"]) == (pytest.approx(theirs.stats[0]), pytest.approx(theirs.stats[1]))


@pytest.mark.parametrize("numbers", ["labels", "ids", "from 1"])
@pytest.mark.parametrize("fractions", [False, True])
def test_numbering_and_units_are_found_by_what_the_float_model_says(numbers, fractions):
    pytest.importorskip("pycocotools")
    ids = np.array([17, 44, 3])
    truth = [{"boxes": BOXES[[0, 1, 3]] / 64, "labels": np.array([1, 2, 0]), "ids": ids}]
    classes = {"labels": [1, 2, 0], "ids": ids, "from 1": [2, 3, 1]}[numbers]
    reference = as_outputs([(BOXES[[0, 1, 3]] / (64 if fractions else 1), [0.9, 0.8, 0.7], classes)])
    assert measured(reference, truth)["map"] == pytest.approx(1)
    wrong = reference | {"labels": [np.roll(reference["labels"][0], 1)]}
    assert measured(wrong, truth, reference)["map"] == 0  # it is not asked for its own numbering


def test_nothing_found_and_nothing_labeled():
    pytest.importorskip("pycocotools")
    full = as_outputs([(BOXES[[0]], [0.9], [0])])
    empty = as_outputs([([], [], [])])
    truth = [{"boxes": BOXES[[0]], "labels": np.array([0])}]
    assert measured(empty, truth, full) == {"map": 0, "map50": 0}
    nothing = [{"boxes": np.zeros((0, 4)), "labels": np.zeros(0, np.int64)}]
    assert measured(full, nothing) == {}
    broken = as_outputs([(BOXES[[0]] * np.nan, [0.9], [0])])
    assert measured(broken, truth, full) == {"map": 0, "map50": 0}


def test_pixels_need_the_size_of_the_images():
    truth = [{"boxes": BOXES[[0]], "labels": np.array([0])}]
    with pytest.raises(DataError, match="the size of the images is not known"):
        measured(as_outputs([(BOXES[[0]], [0.9], [0])]), truth, size=None)
    with pytest.raises(DataError, match="not one class number for each box"):
        measured(as_outputs([(BOXES[[0]], [0.9], [0])]), [{"boxes": BOXES, "labels": np.array([0])}])


def test_without_pycocotools_the_message_says_how_to_install_it(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pycocotools"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    box = {"image_id": 1, "category_id": 0, "bbox": [0.0, 0.0, 1.0, 1.0]}
    with pytest.raises(DataError, match=r"pip install 'lowbit\[detection\]'"):
        detection.evaluated([box | {"id": 1, "area": 1.0, "iscrowd": 0}], [box | {"score": 1.0}], 1)

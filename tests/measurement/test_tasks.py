"""Each task on real files: the metric of float and quantized rows against a formula written out here."""

import math

import numpy as np
import onnx
import pytest

import lowbit
from lowbit.engines import open_session
from lowbit.errors import DataError
from lowbit.measurement.conditions import CompareOptions, Conditions
from lowbit.measurement.judging import case_of
from lowbit.measurement.prediction import Answers
from lowbit.measurement.results_file import parse_results
from lowbit.measurement.tasks import TASKS, chosen_task
from lowbit.measurement.tasks.sequences import edit_distance
from lowbit.reports.files import results_csv, results_json
from lowbit.reports.page import page
from task_networks import CASES, COUNT, TaskCase

PLAIN = Conditions(runs=0, with_memory=False)


def predicted(path, case: TaskCase) -> list[dict[str, np.ndarray]]:
    """All outputs of a file, sample by sample, straight from ONNX Runtime."""
    session = open_session(path, threads=1)
    return [session.run({name: x[i : i + 1] for name, x in case.inputs.items()}) for i in range(COUNT)]


def miou(answers, labels):
    classes = np.stack([each["maps"][0].argmax(axis=0) for each in answers])
    known = labels != 255
    shares = []
    for k in range(4):
        both = np.sum((classes == k) & (labels == k) & known)
        either = np.sum(((classes == k) | (labels == k)) & known)
        shares += [both / either] if either else []
    return {"miou": np.mean(shares), "pixel_accuracy": np.mean(classes[known] == labels[known])}


def mse_and_r2(answers, labels):
    y = np.concatenate([each["y"] for each in answers]).astype(np.float64)
    errors = (y - labels) ** 2
    r2 = [1 - errors[:, k].sum() / ((labels[:, k] - labels[:, k].mean()) ** 2).sum() for k in range(3)]
    return {"mse": errors.mean(), "r2": np.mean(r2)}


def character_errors(answers, labels):
    """By recursion on the definition, not by a table."""

    def edits(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(edits(a[1:], b) + 1, edits(a, b[1:]) + 1, edits(a[1:], b[1:]) + (a[0] != b[0]))

    wrong = total = exact = 0
    for each, label in zip(answers, labels, strict=True):
        text, before = [], None
        for k in each["y"][:, 0].argmax(axis=1).tolist():
            text += [k] if k not in (before, 0) else []
            before = k
        wanted = [k for k in label.tolist() if k >= 0]
        while text and wanted and text[0] == wanted[0]:  # the recursion is exponential
            text, wanted, total = text[1:], wanted[1:], total + 1
        distance = edits(tuple(text), tuple(wanted)) if len(text) + len(wanted) < 14 else edit_distance(text, wanted)
        wrong, total, exact = wrong + distance, total + len(wanted), exact + (distance == 0)
    return {"cer": wrong / total, "exact": exact / COUNT}


def perplexity(answers, labels):
    losses, right = [], []
    for each, ids in zip(answers, labels, strict=True):
        for scores, k in zip(each["y"][0].astype(np.float64), ids, strict=True):
            if k >= 0:
                losses.append(math.log(np.exp(scores).sum()) - scores[k])
                right.append(scores.argmax() == k)
    return {"perplexity": math.exp(np.mean(losses)), "token_accuracy": np.mean(right)}


def recall(answers, labels):
    vectors = np.stack([each["y"][0] for each in answers]).astype(np.float64)
    hits = {1: 0, 5: 0}
    for i, v in enumerate(vectors):
        near = sorted((j for j in range(COUNT) if j != i), key=lambda j: -(v @ vectors[j]))
        for k in hits:
            hits[k] += any(labels[j] == labels[i] for j in near[:k])
    return {f"recall{k}": n / COUNT for k, n in hits.items()}


def top5(answers, labels):
    scores = [each["y"][0] for each in answers]
    return {"top5": np.mean([sum(s > s[k]) < 5 for s, k in zip(scores, labels, strict=True)])}


ORACLES = {
    "segmentation": miou,
    "regression": mse_and_r2,
    "sequences": character_errors,
    "tokens": perplexity,
    "embeddings": recall,
    "classification": top5,
}


@pytest.fixture(scope="module", params=[*ORACLES, "detection"])
def compared(request, tmp_path_factory, quick_measuring_of_module):
    name = request.param
    if name == "detection":
        pytest.importorskip("pycocotools")
    folder = tmp_path_factory.mktemp(name)
    case = CASES[name]()
    onnx.save(case.model, folder / "net.onnx")
    data = [({key: x[i] for key, x in case.inputs.items()}, case.labels[i]) for i in range(COUNT)]
    if name == "sequences":
        data = [({"x": x[None]}, label) for x, label in zip(case.inputs["x"], case.labels, strict=True)]
    found = lowbit.compare(
        folder / "net.onnx",
        data,
        calibration=data,
        recipes=("int8", "linear3"),
        folder=folder / "out",
        options=CompareOptions(effort="fast", same_data=True),
        conditions=PLAIN,
    )
    return name, case, found, folder / "out"


def test_the_task_is_chosen_and_measured_on_the_written_files(compared):
    name, case, found, folder = compared
    assert found.task == name
    assert tuple(metric.name for metric in found.metrics) == case.metrics
    assert len(found.rows) == 3
    for row in found.rows:
        assert {output.name for output in row.details.outputs} == {output.name for output in case.model.graph.output}
        if name in ORACLES:
            expected = ORACLES[name](predicted(folder / row.file, case), np.asarray(case.labels))
            for metric, value in expected.items():
                assert row.scores[metric] == pytest.approx(value, rel=1e-6, abs=1e-9), (row.recipe, metric)


def test_distances_are_measured_beside_the_task(compared):
    name, _, found, _ = compared
    first, *others = found.rows
    assert (first.output_sqnr_db, first.output_error, first.worst_output) == (None, None, "")
    for row in others:
        assert 0 < row.output_error < 1
        assert row.output_sqnr_db > 5
        assert (row.output_agreement is not None) == (name == "detection")


def test_reports_show_the_metrics_with_their_direction(compared):
    _, _, found, _ = compared
    text = results_json(found)
    assert parse_results(text) == found
    header = results_csv(found).splitlines()[0].split(",")
    html = page(found)
    for metric in found.metrics:
        assert metric.name in header
        assert f">{metric.title}<small>" in html
    if not found.classifies:
        assert f"{'higher' if found.metrics[0].best > 0 else 'lower'} is better" in html
        for output in found.rows[1].details.outputs:
            assert f'<td class="text">{output.name}</td>' in html


@pytest.mark.parametrize("name", [*ORACLES, "detection"])
def test_every_task_can_be_named_and_refuses_what_is_not_for_it(name):
    case = CASES[name]()
    wrong = Answers(
        {"y": np.zeros((COUNT, 2, 2, 2, 2), np.float32)}, None, ("?",) and tuple(np.zeros((COUNT, 3, 3, 3)))
    )
    with pytest.raises(DataError, match=f"those of the task '{name}'"):
        chosen_task(name, case_of(wrong, wrong, None))
    assert TASKS[name].name == name
    assert case.metrics == tuple(metric.name for metric in TASKS[name].metrics)


def test_there_is_no_such_task():
    with pytest.raises(DataError, match="there is no task 'speech'") as raised:
        chosen_task("speech", case_of(Answers({}), Answers({}), None))
    assert "segmentation" in raised.value.remedy


def test_a_function_of_outputs_and_labels(tmp_path):
    case = CASES["regression"]()
    onnx.save(case.model, tmp_path / "net.onnx")

    def worst_error(outputs, labels):
        """Largest absolute error."""
        return np.abs(outputs["y"] - labels).max()

    found = lowbit.measure([tmp_path / "net.onnx"], lowbit.open_data(case.data, lowbit.load(tmp_path / "net.onnx")),
                           conditions=PLAIN, task=worst_error)  # fmt: skip
    assert found.task == "worst_error"
    y = np.concatenate([each["y"] for each in predicted(tmp_path / "net.onnx", case)])
    assert found.rows[0].scores == {"worst_error": pytest.approx(np.abs(y - case.labels).max(), rel=1e-5)}
    assert (found.metrics[0].best, found.metrics[0].help) == (0, "Largest absolute error.")
    assert parse_results(results_json(found)) == found
    assert "worst_error" in page(found)


def case(outputs, truth):
    answers = Answers(outputs, None, truth) if not _are_classes(truth) else Answers(outputs, truth)
    return case_of(answers, answers, None)


def _are_classes(truth):
    return isinstance(truth, np.ndarray) and truth.ndim == 1 and truth.dtype.kind == "i"


N = np.zeros


@pytest.mark.parametrize(
    ("outputs", "truth", "task"),
    [
        ({"y": N((4, 5), np.float32)}, None, "classification"),
        ({"y": N((4, 5), np.float32)}, N(4, np.int64), "classification"),
        ({"y": N((4, 5, 1, 1), np.float32)}, N(4, np.int64), "classification"),
        ({"f": N((4, 7, 7, 7), np.float32), "y": N((4, 5), np.float32)}, N(4, np.int64), "classification"),
        ({"f": N((4, 7, 7, 7), np.float32), "y": N((4, 5), np.float32)}, None, "distance"),
        ({"y": N((4, 5, 9, 9), np.float32)}, N((4, 9, 9), np.int64), "segmentation"),
        ({"y": N((4, 9, 9), np.int64)}, N((4, 9, 9), np.uint8), "segmentation"),
        ({"y": N((4, 1, 9, 9), np.float32)}, N((4, 18, 18), bool), "segmentation"),
        ({"y": N((4, 1), np.float32)}, N(4, np.float32), "regression"),
        ({"f": N((4, 8), np.float32), "y": N((4, 3), np.float32)}, N((4, 3)), "regression"),
        ({"y": N((4, 12, 30), np.float32)}, N((4, 7), np.int64), "sequences"),
        ({"y": N((4, 12, 30), np.float32)}, tuple(N(n, np.int64) for n in (1, 2, 3, 4)), "sequences"),
        ({"y": N((4, 12, 30), np.float32)}, N((4, 12), np.int64), "tokens"),
        ({"y": np.eye(4, 5, dtype=np.float32) * -1}, None, "embeddings"),
        ({"y": np.eye(4, 5, dtype=np.float32) * -1}, N(4, np.int64) + 999, "embeddings"),
        ({"y": N((4, 5, 9, 9), np.float32)}, None, "distance"),
        ({"y": N((4, 5, 9, 9), np.float32)}, N((4, 3)), "distance"),
        ({"y": N((4, 5), np.int64)}, None, "distance"),
    ],
)
def test_what_outputs_and_labels_are_made_for(outputs, truth, task):
    assert chosen_task(None, case(outputs, truth)).name == task


def score(name, outputs, truth, reference=None):
    given = case(outputs, truth)
    given = given if reference is None else case_of(Answers(outputs, None, truth), Answers(reference), None)
    return TASKS[name].measure(given)


def test_maps_of_every_layout_and_size_say_the_same():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (5, 6, 8))
    scores = rng.normal(size=(5, 3, 6, 8)).astype(np.float32)
    expected = score("segmentation", {"y": scores}, labels)
    assert score("segmentation", {"y": np.moveaxis(scores, 1, -1)}, labels) == expected
    assert score("segmentation", {"y": scores.argmax(axis=1)}, labels) == expected
    large = labels.repeat(2, axis=1).repeat(2, axis=2)
    assert score("segmentation", {"y": scores}, large) == expected
    assert score("segmentation", {"y": list(scores)}, tuple(labels)) == expected
    with pytest.raises(DataError, match="a pixel has label 3, but the model has 3 classes"):
        score("segmentation", {"y": scores}, labels + 1)


def test_one_channel_is_two_classes():
    labels = np.array([[[0, 1], [1, 1]]])
    logits = np.array([[[[-1, 2], [3, -4]]]], np.float32)
    by_hand = {"miou": pytest.approx((1 / 2 + 2 / 3) / 2), "pixel_accuracy": 0.75}
    assert score("segmentation", {"y": logits}, labels) == by_hand
    assert score("segmentation", {"y": 1 / (1 + np.exp(-logits))}, labels) == by_hand


def test_what_does_not_vary_has_no_r2():
    y = np.array([[1.0, 2], [3, 2]])
    assert score("regression", {"y": y.astype(np.float32)}, y) == {"mse": 0, "r2": 1}
    assert score("regression", {"y": np.ones((2, 1), np.float32)}, np.ones(2)) == {"mse": 0}
    sequences = tuple(np.arange(n) * 1.0 for n in (2, 3))
    shifted = [(s + 1).astype(np.float32) for s in sequences]
    assert score("regression", {"y": shifted}, sequences)["mse"] == 1


@pytest.mark.parametrize(
    ("one", "other", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("ab", "ba", 2), ("a", "a", 0)]
)
def test_edit_distances_by_hand(one, other, edits):
    assert edit_distance([*map(ord, one)], [*map(ord, other)]) == edits


@pytest.mark.parametrize("blank", [0, 3])
def test_the_blank_is_the_class_that_labels_do_not_have(blank):
    classes = [1, 2] if blank == 0 else [0, 1]
    said = [classes[0], classes[0], blank, classes[0], classes[1], blank]  # a a - a b -
    scores = np.eye(4, dtype=np.float32)[[said]]
    assert score("sequences", {"y": scores}, np.array([[classes[0], classes[0], classes[1], -1]])) == {
        "cer": 0,
        "exact": 1,
    }
    wrong = np.array([[classes[0], classes[1], classes[1], classes[1]]])
    assert score("sequences", {"y": scores}, wrong) == {"cer": 0.5, "exact": 0}


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary():
    scores = np.zeros((2, 3, 7), np.float32)
    ids = np.array([[1, 2, -100], [0, 6, -100]])
    assert score("tokens", {"y": scores}, ids)["perplexity"] == pytest.approx(7)
    assert score("tokens", {"y": scores}, ids * 0 - 100) == {}
    with pytest.raises(DataError, match="token 7, but the model has a vocabulary of 7"):
        score("tokens", {"y": scores}, ids + 1)


def test_vectors_that_are_all_the_same_recall_nothing():
    same = np.ones((6, 3), np.float32)
    identities = np.array([0, 0, 1, 1, 2, 3])
    assert score("embeddings", {"y": same}, identities) == {"recall1": 0, "recall5": 1}
    broken = np.full((6, 3), np.nan, np.float32)
    assert score("embeddings", {"y": broken}, identities) == {"recall1": 0, "recall5": 0}
    assert score("embeddings", {"y": -same}, None, {"y": same}) == {"cosine": pytest.approx(-1)}

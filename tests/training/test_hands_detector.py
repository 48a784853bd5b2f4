import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lowbit.data.hands_in_pictures import HandPictures, hand_pictures  # noqa: E402
from lowbit.engines import open_session  # noqa: E402
from lowbit.graph.load import load  # noqa: E402
from lowbit.measurement.tasks.detections import detections, overlaps  # noqa: E402
from lowbit.training.detector import (  # noqa: E402
    PREPROCESSING,
    STRIDE,
    Detector,
    _assigned,
    _overlaps,
    as_input,
    as_model,
    loss,
    train_detector,
)

pytestmark = pytest.mark.filterwarnings("default")  # of torch's exporter


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """So few pictures keep one core busy; threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(told):
    """A detector that has seen one picture often: it knows it by heart, mirrored too."""
    one = hand_pictures("train", 1)
    many = HandPictures(np.repeat(one.images, 8, axis=0), one.labels * 8)
    return train_detector(many, epochs=60, progress=told), one, told


def test_what_it_was_shown_often_it_finds(trained):
    model, one, told = trained
    losses = [float(note.rpartition(" ")[2]) for note in told.notes]
    assert len(losses) == 60
    assert losses[-1] < 0.2 * losses[0]
    with torch.inference_mode():
        outputs = {"detections": model(torch.from_numpy(as_input(one.images))).numpy()}
    (found,) = detections(outputs, outputs)
    (truth,) = one.labels
    best = found.scores > 0.4
    shared = overlaps(truth["boxes"].astype(float), found.boxes[best])
    assert shared.max(axis=1).min() > 0.7  # all hands are found
    assert shared.max(axis=0).min() > 0.3  # and nothing else
    np.testing.assert_array_equal(found.classes[best][shared.argmax(axis=1)], truth["labels"])


def test_the_file_computes_what_torch_computes(trained):
    model, _, _ = trained
    exported = as_model(model)
    assert [(info.name, info.shape) for info in (*exported.inputs, *exported.outputs)] == [
        ("x", ("batch", 3, 96, 96)), ("detections", ("batch", 144, 8)),
    ]  # fmt: skip
    written = load(exported.to_bytes())
    assert (written.preprocessing, written.trained_parameters) == (PREPROCESSING, 78_728)
    x = as_input(hand_pictures("test", 3).images)
    with torch.inference_mode():
        expected = model(torch.from_numpy(x)).numpy()
    given = open_session(exported.to_bytes(), threads=1).run({"x": x})["detections"]
    np.testing.assert_allclose(given, expected, atol=1e-3)


def test_the_four_cells_around_a_center_are_to_find_the_hand():
    box = np.float32([[30, 20, 50, 60]])  # its center is 40, 40: the corner of cells 4 and 5 is at 40
    places, wanted, kinds = _assigned([np.zeros((0, 4), np.float32), box], [np.zeros(0, np.int64), np.array([2])])
    assert sorted(map(tuple, places.tolist())) == [(1, 5, 5), (1, 5, 6), (1, 6, 5), (1, 6, 6)]
    assert wanted.tolist() == [[40, 40, 20, 40]] * 4
    assert kinds.tolist() == [2] * 4
    assert ((wanted[0, :2] / STRIDE - places[:, [2, 1]]).abs() <= 1).all()  # what tanh can reach
    at_the_edge = _assigned([np.float32([[90, 90, 96, 96]])], [np.array([0])])[0]
    assert at_the_edge.tolist() == [[0, 11, 11]]


def test_overlaps_by_hand():
    boxes = torch.tensor([[1.0, 1, 2, 2], [1, 1, 2, 2], [1, 1, 2, 2]])
    others = torch.tensor([[1.0, 1, 2, 2], [2, 1, 2, 2], [4, 1, 2, 2]])
    overlap, generalized = _overlaps(boxes, others)
    assert overlap.tolist() == pytest.approx([1, 1 / 3, 0])
    assert generalized.tolist() == pytest.approx([1, 1 / 3, -2 / 10])  # the last have 2 of 5 columns between them


def test_pictures_without_hands_teach_that_there_are_none():
    torch.manual_seed(0)
    model = Detector()
    value = loss(model, torch.randn(2, 3, 96, 96), [np.zeros((0, 4), np.float32)] * 2, [np.zeros(0, np.int64)] * 2)
    value.backward()
    assert model.objectness[1].bias.grad.item() > 0  # a step against it makes all cells surer that they are empty
    assert model.box[1].weight.grad is None

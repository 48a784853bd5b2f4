"""Arrays for inputs of any number, type and shape, however they are given."""

import numpy as np
import pytest

import lowbit
import many_inputs
from lowbit.data.constants import parse_feed
from lowbit.data.dataset import overlap
from lowbit.data.opening import open_data
from lowbit.errors import DataError

COUNT = 7


@pytest.fixture(scope="module")
def model():
    return lowbit.load(many_inputs.tokens("length").model)


@pytest.fixture(scope="module")
def named():
    return dict(many_inputs.tokens().samples(COUNT))


def items(named):
    return [{name: x[i] for name, x in named.items()} for i in range(COUNT)]


def as_npz(named, folder):
    np.savez(folder / "all.npz", **named)
    return folder / "all.npz"


def as_npz_folder(named, folder):
    for i, item in enumerate(items(named)):
        np.savez(folder / f"{i}.npz", **item)
    return folder


FORMS = {
    "dict of arrays": lambda named, _: named,
    "npz": as_npz,
    "npz by name": lambda named, folder: str(as_npz(named, folder)),
    "folder of npz": as_npz_folder,
    "list of dicts": lambda named, _: items(named),
    "generator of dicts": lambda named, _: (item for item in items(named)),
    "dicts with a batch of one": lambda named, _: [{k: x[None] for k, x in item.items()} for item in items(named)],
    "batches of three": lambda named, _: [{k: x[i : i + 3] for k, x in named.items()} for i in (0, 3, 6)],
    "tuple of arrays": lambda named, _: tuple(named.values()),
    "list of tuples": lambda named, _: [tuple(item.values()) for item in items(named)],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples(form, model, named, tmp_path):
    data = open_data(FORMS[form](named, tmp_path), model)
    assert data.count == COUNT
    assert data.labels is None
    parts = list(data.batches(4))
    for name, x in named.items():
        given = np.concatenate([part.inputs[name] for part in parts])
        np.testing.assert_array_equal(given, x)
        assert given.dtype == x.dtype
    assert data.fingerprint() == open_data(named, model).fingerprint()
    assert overlap(data, open_data(named, model)) == COUNT


@pytest.mark.parametrize(
    "with_labels",
    [
        lambda named, labels: {**named, "labels": labels},
        lambda named, labels: [{**item, "y": label} for item, label in zip(items(named), labels, strict=True)],
        lambda named, labels: list(zip(items(named), labels, strict=True)),
        lambda named, labels: [(*item.values(), n) for item, n in zip(items(named), labels, strict=True)],
        lambda named, labels: (*named.values(), labels),
        lambda named, labels: [
            ((named["ids"][i : i + 2], named["mask"][i : i + 2]), labels[i : i + 2]) for i in (0, 2, 4, 6)
        ],
    ],
)
def test_labels_come_along(with_labels, model, named):
    labels = np.arange(COUNT) % 3
    data = open_data(with_labels(named, labels), model)
    np.testing.assert_array_equal(data.labels, labels)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in data.batches(2)]), labels)
    chosen = data.subset(3)
    assert sorted(chosen.labels) == [0, 1, 2]
    others, apart = data.apart(3)
    assert (others.count, apart.count, overlap(others, apart)) == (COUNT - 3, 3, 0)


def test_labels_of_different_lengths_follow_their_samples(model, tmp_path):
    """In a folder of files, in dicts and in pairs; one item with a batch dimension has one label for each row."""
    lengths, labels = (5, 8, 3), [np.array([1, 2]), np.array([3]), np.array([], np.int64)]
    given = [{"ids": np.arange(n), "mask": np.ones(n, np.float32)} for n in lengths]
    for number, (item, label) in enumerate(zip(given, labels, strict=True)):
        np.savez(tmp_path / f"{number}.npz", **item, labels=label)
    dicts = [{**item, "y": label} for item, label in zip(given, labels, strict=True)]
    for source in (tmp_path, dicts, list(zip(given, labels, strict=True))):
        data = open_data(source, model)
        assert data.labels is None
        for found, wanted in zip(data.targets, labels, strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert data.fingerprint() != open_data(given, model).fingerprint()
    batched = ({"ids": np.zeros((2, 4), int), "mask": np.ones((2, 4))}, np.array([[1, 2, 3], [4, 5, 6]]))
    np.testing.assert_array_equal(open_data([batched], model).targets, batched[1])
    alone = ({"ids": np.zeros((1, 4), int), "mask": np.ones((1, 4))}, np.array([[1, 2, 3]]))
    np.testing.assert_array_equal(open_data([alone, alone], model).targets, [[1, 2, 3]] * 2)


def test_batches_end_where_lengths_change(model):
    lengths = (5, 5, 8, 8, 8, 3)
    given = [{"ids": np.arange(n), "mask": np.ones(n, np.float32)} for n in lengths]
    data = open_data(given, model)
    assert [part.inputs["ids"].shape for part in data.batches(2)] == [(2, 5), (2, 8), (1, 8), (1, 3)]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (lambda named: {"ids": named["ids"]}, "no array for 'mask'"),
        (lambda named: {**named, "extra": named["ids"]}, "for no input: .*'extra'"),
        (lambda named: {**named, "mask": named["mask"][:3]}, "different numbers of samples"),
        (lambda named: {**named, "mask": named["mask"][..., None, None, None]}, "which takes \\[n, length\\]"),
        (lambda named: {**named, "ids": named["ids"] + 0.5}, "takes int64"),
        (lambda named: {**named, "mask": named["mask"] * np.nan}, "NaN"),
        (lambda named: {**named, "labels": [1, 2]}, "one for each of 7"),
        (lambda named: [{**item, "labels": 0} if i else item for i, item in enumerate(items(named))], "some have none"),
        (lambda named: [(item["ids"],) for item in items(named)], "1 arrays, the model 2 inputs"),
        (lambda named: named["ids"], "the model has 2 inputs"),
        (
            lambda named: [{k: x.astype(object) for k, x in item.items()} for item in items(named)],
            "no array of numbers",
        ),
        (lambda named: [], "no items"),
        (lambda named: {name: x[:0] for name, x in named.items()}, "no samples"),
        (lambda named: 3, "cannot be read from a int"),
    ],
)
def test_what_does_not_fit_is_refused(given, match, model, named):
    with pytest.raises(DataError, match=match):
        list(open_data(given(named), model).batches(4))


def test_images_are_refused_where_there_are_several_inputs(model, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="images go to one input, the model takes ids, mask"):
        open_data(tmp_path, model)
    siamese = lowbit.load(many_inputs.two_images().model)
    how = lowbit.Preprocessing(8, 8)
    bound = open_data(lowbit.open_images(tmp_path, how), siamese, feeds={"right": 0.5})
    (part,) = bound.batches(3)
    assert part.inputs["left"].shape == part.inputs["right"].shape == (1, 3, 8, 8)
    assert set(part.inputs["right"].ravel()) == {0.5}


def test_constants_stand_beside_every_sample(model, named, tmp_path):
    data = open_data({"ids": named["ids"]}, model, feeds={"mask": 1.0})
    (part,) = data.batches(COUNT)
    np.testing.assert_array_equal(part.inputs["mask"], np.ones((COUNT, 12), np.float32))
    row = np.arange(12) % 2
    np.save(tmp_path / "row.npy", row)
    name, array = parse_feed(f"mask={tmp_path / 'row.npy'}")
    (part,) = open_data({"ids": named["ids"]}, model, feeds={name: array}).batches(COUNT)
    np.testing.assert_array_equal(part.inputs["mask"], np.tile(row.astype(np.float32), (COUNT, 1)))
    with pytest.raises(DataError, match="no input 'masks'"):
        open_data({"ids": named["ids"]}, model, feeds={"masks": 1.0})
    with pytest.raises(DataError, match="shape"):
        open_data({"ids": named["ids"]}, model, feeds={"mask": np.ones((2, 5))})


@pytest.mark.parametrize("text", ["mask", "=ones", "mask=", "mask=many", "mask=none.npy"])
def test_feeds_that_say_nothing_are_refused(text):
    with pytest.raises(DataError, match=r"--feed|cannot read"):
        parse_feed(text)


def test_a_file_that_is_damaged_is_named(model, named, tmp_path):
    as_npz_folder(named, tmp_path)
    (tmp_path / "3.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match=r"3\.npz"):
        open_data(tmp_path, model)
    (tmp_path / "3.npz").unlink()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"beside 'notes\.txt'"):
        open_data(tmp_path, model)

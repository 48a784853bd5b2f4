"""Folders and the built-in set: what is found, in which order, and what is refused."""

import os

import numpy as np
import pytest
from PIL import Image

from lowbit.data.images import open_images
from lowbit.errors import DataError
from lowbit.graph.preprocessing import Preprocessing

SMALL = Preprocessing(4, 4)


def image_file(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (4, 4), (value, value, value))
    image.save(path, **({"lossless": True} if path.suffix == ".webp" else {}))


def test_classes_are_alphabetical_and_subfolders_belong_to_them(tmp_path):
    for name, value in (("b/2.png", 1), ("b/sub/deep/1.PNG", 2), ("a/x.jpeg", 3), ("c/z.webp", 4), ("c/y.bmp", 5)):
        image_file(tmp_path / name, value)
    images = open_images(tmp_path, SMALL)
    assert images.class_names == ("a", "b", "c")
    assert images.labels.tolist() == [0, 1, 1, 2, 2]
    assert images.labels.dtype == np.int64
    assert images.count == len(images) == 5
    assert images.name == tmp_path.name
    assert [int(p[0, 0, 0]) for p, _ in images.pixels()] == [3, 1, 2, 5, 4]
    assert [label for _, label in images.pixels()] == [0, 1, 1, 2, 2]


def test_hidden_and_foreign_files_are_passed_over(tmp_path):
    image_file(tmp_path / "a/1.png")
    image_file(tmp_path / "a/.hidden/2.png")
    image_file(tmp_path / "a/__MACOSX/2.png")
    image_file(tmp_path / ".git/3.png")
    (tmp_path / "a/.DS_Store").write_bytes(b"x")
    (tmp_path / "a/._1.png").write_bytes(b"x")
    (tmp_path / "a/notes.txt").write_text("x")
    (tmp_path / "labels.csv").write_text("x")
    os.mkfifo(tmp_path / "a/pipe.png")
    images = open_images(str(tmp_path), SMALL)
    assert (images.count, images.class_names) == (1, ("a",))


def test_flat_folder_and_single_file_have_no_labels(tmp_path):
    image_file(tmp_path / "2.png", 2)
    image_file(tmp_path / "1.png", 1)
    (tmp_path / "empty").mkdir()
    images = open_images(tmp_path, SMALL)
    assert images.labels is None
    assert images.class_names is None
    assert [(int(p[0, 0, 0]), label) for p, label in images.pixels()] == [(1, None), (2, None)]
    one = open_images(tmp_path / "1.png", SMALL)
    assert [batch.x.shape for batch in one.batches()] == [(1, 3, 4, 4)]
    assert next(one.batches()).labels is None


def test_classes_can_be_given_in_the_order_of_the_outputs(tmp_path):
    image_file(tmp_path / "cat/1.png")
    image_file(tmp_path / "dog/1.png")
    images = open_images(tmp_path, SMALL, classes=["dog", "bird", "cat"])
    assert images.labels.tolist() == [2, 0]
    assert images.class_names == ("dog", "bird", "cat")
    with pytest.raises(DataError, match="'dog' is not one of the classes"):
        open_images(tmp_path, SMALL, classes=["cat", "bird"])


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="the folder has no images") as caught:
        open_images(tmp_path, SMALL)
    assert str(tmp_path) in str(caught.value)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="the folder has no images"):
        open_images(tmp_path, SMALL)


def test_class_folder_without_images_is_named(tmp_path):
    image_file(tmp_path / "a/1.png")
    (tmp_path / "rock/deeper").mkdir(parents=True)
    with pytest.raises(DataError, match="class folder 'rock' has no images"):
        open_images(tmp_path, SMALL)


def test_images_beside_class_folders(tmp_path):
    image_file(tmp_path / "a/1.png")
    image_file(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"there are images \(1\) beside class folders"):
        open_images(tmp_path, SMALL)


def test_a_folder_of_splits_is_not_taken_for_classes(tmp_path):
    image_file(tmp_path / "train/a/1.png")
    image_file(tmp_path / "test/a/1.png")
    with pytest.raises(DataError, match=r"look like splits.*Give one of them, such as .*test"):
        open_images(tmp_path, SMALL)
    assert open_images(tmp_path, SMALL, classes=["train", "test"]).count == 2


def test_images_in_formats_that_are_not_read_are_named(tmp_path):
    image_file(tmp_path / "a/1.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a/2.gif")
    with pytest.raises(DataError, match=r"2\.gif: gif images are not supported"):
        open_images(tmp_path, SMALL)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folder(tmp_path):
    image_file(tmp_path / "a/1.png")
    (tmp_path / "a").chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        open_images(tmp_path, SMALL)
    (tmp_path / "a").chmod(0o755)


def test_missing_and_unknown_sources(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        open_images(tmp_path / "gone", SMALL)
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(DataError, match="this file type is not supported"):
        open_images(tmp_path / "a.pdf", SMALL)
    with pytest.raises(DataError, match="no built-in split 'nothing'"):
        open_images("builtin:nothing", SMALL)
    for nonsense in (7, {"a": 1}, b"x", None):
        with pytest.raises(DataError, match="cannot be read from a"):
            open_images(nonsense, SMALL)


def test_builtin_draws_are_ready_and_kept():
    images = open_images("builtin:calibration", Preprocessing(16, 16), limit=9)
    assert images.name == "builtin:calibration"
    assert images.class_names == ("paper", "rock", "scissors")
    assert np.bincount(images.labels).tolist() == [3, 3, 3]
    first, second = (next(images.batches(9)) for _ in range(2))
    assert first.x.shape == (9, 3, 16, 16)
    assert np.array_equal(first.x, second.x)
    # What is kept cannot be changed from outside.
    with pytest.raises(ValueError, match="read-only"):
        images.image(0)[0, 0, 0] = 1
    gray = Preprocessing(16, 16, channels=1, mean=(0.0,), std=(1.0,))
    assert next(open_images(images, gray).batches(2)).x.shape == (2, 1, 16, 16)


def test_rps28_is_rgba_over_white_and_scaled_up(shared_data):
    folder = shared_data / "rps28" / "test"
    if not folder.is_dir():
        pytest.skip("rps28 is not there")
    images = open_images(folder, Preprocessing(128, 128))
    assert images.class_names == ("paper", "rock", "scissors")
    assert np.bincount(images.labels).tolist() == [124, 124, 124]
    path = images.source.places[0]
    with Image.open(path) as stored:
        assert stored.mode == "RGBA"
        rgba = np.asarray(stored).astype(np.float64)
    alpha = rgba[:, :, 3:] / 255
    assert images.image(0).shape == (28, 28, 3)
    assert np.abs(images.image(0) - (rgba[:, :, :3] * alpha + 255 * (1 - alpha))).max() <= 1
    batch = next(images.batches(3))
    assert batch.x.shape == (3, 3, 128, 128)
    assert batch.x[0, :, 0, 0].min() > 0.9  # the corners of these pictures are white

"""Labels beside the images: COCO JSON, YOLO text, masks and arrays, and one test for each malformed file."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lowbit
from graphs import make, make_node
from lowbit.data import label_files
from lowbit.data.images import open_images
from lowbit.data.opening import open_data
from lowbit.errors import DataError

SIZES = {"a.png": (20, 10), "b.png": (40, 40), "c.jpg": (8, 16)}  # width, height


@pytest.fixture(scope="module")
def model():
    weights = {"w": np.ones((4, 3, 1, 1))}
    return lowbit.load(make([make_node("Conv", "x w", "y")], {"x": ["n", 3, 16, 16]}, {"y": ["n", 4, 16, 16]}, weights))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, (width, height) in SIZES.items():
        Image.new("RGB", (width, height)).save(folder / name)
    return folder


def coco_data():
    return {
        "images": [
            {"id": 7 + i, "file_name": name, "width": width, "height": height}
            for i, (name, (width, height)) in enumerate(SIZES.items())
        ],
        "categories": [{"id": 44, "name": "b"}, {"id": 3, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 44, "bbox": [5, 2, 10, 4]},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0, 0, 8, 8], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 20, 10]},
        ],
    }


def opened(images, model, labels, **how):
    return open_data(images, model, labels=labels, **how)


def test_coco_boxes_become_fractions_and_keep_their_ids(images, model, tmp_path):
    (tmp_path / "boxes.json").write_text(json.dumps(coco_data()))
    data = opened(images, model, tmp_path / "boxes.json")
    assert data.labels is None
    first, second, third = data.targets
    np.testing.assert_allclose(first["boxes"], [[0.25, 0.2, 0.75, 0.6], [0, 0, 1, 1]])
    assert (first["labels"].tolist(), first["ids"].tolist(), first["iscrowd"].tolist()) == ([1, 0], [44, 3], [0, 0])
    assert (second["boxes"].shape, second["labels"].shape) == ((0, 4), (0,))
    np.testing.assert_allclose(third["boxes"], [[0, 0, 1, 0.5]])
    assert third["iscrowd"].tolist() == [True]


def test_yolo_text_gives_the_same_boxes(images, model, tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a.txt").write_text("1 0.5 0.4 0.5 0.4\n\n0 0.5 0.5 1 1\n")
    (folder / "c.txt").write_text("0 0 0 1 0 1 0.5 0 0.5\n")  # a polygon
    first, second, third = opened(images, model, folder).targets
    np.testing.assert_allclose(first["boxes"], [[0.25, 0.2, 0.75, 0.6], [0, 0, 1, 1]])
    assert first["labels"].tolist() == [1, 0]
    assert second["boxes"].shape == (0, 4)
    np.testing.assert_allclose(third["boxes"], [[0, 0, 1, 0.5]])


def test_masks(images, model, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    expected = []
    for i, (name, (width, height)) in enumerate(SIZES.items()):
        classes = np.random.default_rng(i).integers(0, 4, (height, width), dtype=np.uint8)
        picture = Image.fromarray(classes)
        if i == 1:
            picture = picture.convert("P")
        picture.save(folder / f"{name[0]}.png")
        expected.append(np.asarray(Image.open(folder / f"{name[0]}.png")))
    for found, wanted in zip(opened(images, model, folder).targets, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays(images, model, tmp_path, ending):
    path = tmp_path / f"labels.{ending}"
    values = np.array([[0.5, 1], [2, 3], [4, 5]])
    np.save(path, values) if ending == "npy" else np.savez(path, labels=values)
    np.testing.assert_array_equal(opened(images, model, path).targets, values)
    np.save(tmp_path / "classes.npy", [2, 0, 1])
    assert opened(images, model, str(tmp_path / "classes.npy")).labels.tolist() == [2, 0, 1]


def test_labels_in_python_take_the_place_of_folders_and_follow_their_images(images, model):
    targets = [np.arange(n) for n in (1, 2, 3)]
    data = opened(images, model, targets)
    chosen = data.subset(2)
    for place, target in zip(chosen.places, chosen.targets, strict=True):
        np.testing.assert_array_equal(target, targets[data.places.index(place)])
    arrays = open_data({"x": np.zeros((3, 3, 16, 16), np.float32)}, model, labels=[1, 0, 2])
    assert arrays.labels.tolist() == [1, 0, 2]


def changed(**values):
    return {**coco_data(), **values}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "no JSON file"),
        ("[]", "no COCO file"),
        ("{}", "no COCO file"),
        (json.dumps(changed(images=[])), "'a.png' is not in the file"),
        (json.dumps(changed(categories=[])), "no such category"),
        (
            json.dumps(changed(annotations=[{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3]}])),
            "no box of 4 numbers",
        ),
        (json.dumps(changed(annotations=[{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 1e999]}])), "no box of 4"),
        (json.dumps(changed(annotations=[{"image_id": 7, "category_id": 3, "bbox": ["a", 2, 3, 4]}])), "no COCO file"),
        (json.dumps(changed(images=[{"id": 1, "file_name": "a.png", "width": 0, "height": 3}])), "is 0.0x3.0"),
        ('{"categories": [], "annotations": [], "images": [{"id": NaN, "file_name": "a.png"}]}', "no COCO file"),
        (json.dumps(changed(images=[{"file_name": "a.png"}])), "no COCO file"),
        (json.dumps(changed(categories=[{"id": 1 << 70}], annotations=[])), "no COCO file"),
        (json.dumps(changed(images=[{"id": 1, "file_name": "a.png", "width": 10**400, "height": 3}])), "no width"),
        (json.dumps(changed(images=[{"id": 1, "file_name": "a.png"}])), "no width and height"),
        ("[" * 100_000, "no JSON file"),
    ],
)
def test_malformed_coco_files(images, model, tmp_path, text, match):
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(DataError, match=match):
        opened(images, model, tmp_path / "boxes.json")


@pytest.mark.parametrize(
    "line", ["1e30 .5 .5 1 1", "0 1 2 3", "a 1 2 3 4", "-1 .5 .5 1 1", "0.5 .5 .5 1 1", "0 nan .5 1 1", "0 1 2 3 4 5"]
)
def test_malformed_yolo_lines(images, model, tmp_path, line):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "b.txt").write_text(f"0 .5 .5 1 1\n{line}\n")
    with pytest.raises(DataError, match=r"b.txt, line 2: .*is not `class x y width height`"):
        opened(images, model, tmp_path / "labels")


def test_masks_that_are_missing_or_pictures(images, model, tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match=r"no mask or text file for image 'a\.png'"):
        opened(images, model, tmp_path / "masks")
    Image.new("RGB", (20, 10)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="a picture of mode RGB"):
        opened(images, model, tmp_path / "masks")
    (tmp_path / "masks" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot read the mask"):
        opened(images, model, tmp_path / "masks")


def test_a_large_mask_of_a_single_class_is_no_bomb(tmp_path):
    """Masks are small however many pixels they have; those of aerial pictures have tens of millions."""
    Image.new("L", (8000, 6000), 3).save(tmp_path / "a.png")
    mask = label_files._mask(tmp_path, Path("a.jpg"))
    assert mask.shape == (6000, 8000)
    assert mask.dtype == np.int32
    assert mask[-1, -1] == 3


def test_other_files_and_other_samples(images, model, tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        opened(images, model, tmp_path / "gone.json")
    (tmp_path / "a.doc").write_text("")
    with pytest.raises(DataError, match="no kind of labels"):
        opened(images, model, tmp_path / "a.doc")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(DataError, match=r"bad\.npy: the header of an array is damaged"):
        opened(images, model, tmp_path / "bad.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="arrays of dtype object are not read"):
        opened(images, model, tmp_path / "objects.npy")
    with pytest.raises(DataError, match="no files that labels could be named after"):
        opened({"x": np.zeros((3, 3, 16, 16), np.float32)}, model, tmp_path)
    with pytest.raises(DataError, match="expected one for each of 3 samples"):
        opened(images, model, [1, 2])
    assert open_images(images, None).targets is None

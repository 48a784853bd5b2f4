"""Lists of image files: CSV with and without a header, text, labels as numbers and as names."""

import pytest
from PIL import Image

from lowbit.data.images import open_images
from lowbit.errors import DataError

NAMES = ("a.png", "sub folder/b c.png", "d.png")
LISTS = {
    "header.csv": "image,label\n{0},5\n{1},472\n{2},5\n",
    "other order.csv": "id,class,path\n1,5,{0}\n2,472,{1}\n3,5,{2}\n",
    "bare.csv": "{0},5\n{1},472\n{2},5\n",
    "semicolons.csv": "\ufeff{0};5\r\n{1};472\r\n\r\n{2};5\r\n",
    "tabs.tsv": "file\tlabel\n{0}\t5\n{1}\t472\n{2}\t5\n",
    "val.txt": "# subset\n{0} 5\n{1} 472\n\n{2} 5\n",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub folder").mkdir()
    for shade, name in enumerate(NAMES):
        Image.new("RGB", (4, 4), (50 * shade, 0, 0)).save(tmp_path / name)
    return tmp_path


def write(folder, name, text):
    (folder / name).write_text(text.format(*NAMES), encoding="utf-8", newline="")
    return folder / name


@pytest.mark.parametrize("name", LISTS)
def test_all_forms_name_the_same_images(name, folder):
    images = open_images(write(folder, name, LISTS[name]), None)
    assert images.labels.tolist() == [5, 472, 5]
    assert images.class_names is None
    assert [int(pixels[0, 0, 0]) for pixels, _ in images.pixels()] == [0, 50, 100]
    assert images.name == name


@pytest.mark.parametrize("name", ["only.txt", "only.csv"])
def test_labels_may_be_missing(name, folder):
    images = open_images(write(folder, name, "{0}\n{1}\n{2}\n"), None)
    assert (images.count, images.labels) == (3, None)


def test_names_count_in_the_order_of_the_classes(folder):
    path = write(folder, "names.csv", "image,label\n{0},rock\n{1},paper\n{2},rock\n")
    assert open_images(path, None).labels.tolist() == [1, 0, 1]
    images = open_images(path, None, classes=("scissors", "rock", "paper"))
    assert (images.labels.tolist(), images.class_names) == ([1, 2, 1], ("scissors", "rock", "paper"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "names no images"),
        ("image,label\n", "names no images"),
        ("{0},1\nmissing.png,2\n", "line 2: there is no file 'missing.png'"),
        ("{0},1\nnotes.txt,2\n", "no PNG"),
        ("{0},1\n{1},\n", "some have none"),
        ("image,label\n{0},1\n{1}\n", "line 3: the line has 1 columns"),
        ("{0},1\n{1},rock\n", "numbers and names are mixed"),
        ("{0},-1\n", "mixed"),
        ("{0},\x00\n", "no text file"),
    ],
)
def test_what_is_wrong_is_named_by_line(text, match, folder):
    with pytest.raises(DataError, match=match):
        open_images(write(folder, "list.csv", text), None)


def test_a_name_that_is_no_class_is_refused(folder):
    with pytest.raises(DataError, match="label 'rock': the classes are paper"):
        open_images(write(folder, "names.csv", "{0},rock\n"), None, classes=("paper", "scissors"))


def test_bytes_are_no_list(folder):
    (folder / "bytes.csv").write_bytes(bytes(range(200, 256)))
    with pytest.raises(DataError, match="cannot read the list"):
        open_images(folder / "bytes.csv", None)

"""Arrays, sequences and generators: what the numbers mean is decided once, and doubt is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lowbit.data import iterables
from lowbit.data.images import open_images
from lowbit.errors import DataError
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

P = Preprocessing(4, 5, mean=IMAGENET_MEAN, std=IMAGENET_STD)
GRAY = Preprocessing(4, 5, channels=1, mean=(0.0,), std=(1.0,))


@pytest.fixture
def pixels():
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    images[0, 0, 0, 0] = 255
    return images


def all_x(images, size=4):
    return np.concatenate([batch.x for batch in images.batches(size)])


def expected(pixels, preprocessing=P):
    return np.stack([preprocessing.apply(image) for image in pixels])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("kind", ["uint8", "int64", "float 255", "float 1", "float16 255"])
def test_every_spelling_of_pixels_is_the_same_input(pixels, layout, kind):
    given = pixels if layout == "NHWC" else pixels.transpose(0, 3, 1, 2)
    given = {
        "uint8": lambda x: x,
        "int64": lambda x: x.astype(np.int64),
        "float 255": lambda x: x.astype(np.float32),
        "float 1": lambda x: x.astype(np.float32) / 255,
        "float16 255": lambda x: x.astype(np.float16),
    }[kind](given)
    assert np.array_equal(all_x(open_images(given, P)), expected(pixels))
    assert np.array_equal(all_x(open_images(list(given), P)), expected(pixels))


@given(hnp.arrays(np.uint8, (2, 4, 5, 3)))
def test_fractions_come_back_as_the_same_pixels(images):
    source = open_images(images / np.float32(255), P, values="unit")
    assert np.array_equal(np.stack([p for p, _ in source.pixels()]), images)


def test_normalized_arrays_pass_untouched(pixels):
    x = expected(pixels)
    assert x.min() < 0
    images = open_images([(one, i % 3) for i, one in enumerate(x)], P)
    assert np.array_equal(all_x(images), x)
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(DataError, match="inputs of a model, not images"):
        list(images.pixels())
    assert np.array_equal(all_x(open_images(np.abs(x), P, values="model")), np.abs(x))


def test_fractions_are_already_the_input_of_a_model_that_wants_fractions(pixels):
    plain = Preprocessing(4, 5)
    x = np.random.default_rng(1).random((2, 3, 4, 5), dtype=np.float32)
    assert np.array_equal(all_x(open_images(x, plain)), x)


def test_normalized_arrays_of_another_shape_are_refused(pixels):
    with pytest.raises(DataError, match=r"shape \(4, 5, 3\), the model's inputs \(3, 4, 5\)"):
        open_images(expected(pixels).transpose(0, 2, 3, 1), P)


def test_without_preprocessing_floats_are_the_input_and_pixels_are_refused(pixels):
    for x in (np.random.default_rng(0).random((3, 7), dtype=np.float32), pixels.astype(np.float64) / 255):
        out = all_x(open_images(x, None))
        assert out.dtype == np.float32
        assert np.array_equal(out, x.astype(np.float32))
    with pytest.raises(DataError, match=r"lowbit\.prepare"):
        open_images(pixels, None).batches()
    assert np.array_equal(np.stack([p for p, _ in open_images(pixels, None).pixels()]), pixels)


@pytest.mark.parametrize("top", [1.0001, 2.6, 8.0, 255.5, 1000.0])
def test_ambiguous_floats_are_refused_with_the_way_out(pixels, top):
    x = pixels.astype(np.float32) * (top / 255)
    with pytest.raises(DataError, match=r"could be pixels or a model's inputs.*values='unit'"):
        open_images(x, P)


@pytest.mark.parametrize(("low", "high"), [(-1, 255), (0, 256), (0, 65535)])
def test_integers_out_of_range(pixels, low, high):
    x = pixels.astype(np.int32)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = low, high
    with pytest.raises(DataError, match=f"integers range from {low} to {high}"):
        open_images(x, P)


def test_values_said_wrongly_are_caught(pixels):
    with pytest.raises(DataError, match=r"image \d+: values are outside the range 0\.\.1"):
        all_x(open_images(pixels.astype(np.float32), P, values="unit"))
    with pytest.raises(DataError, match="values='pixels' is not known"):
        open_images(pixels, P, values="pixels")
    with pytest.raises(DataError, match="must be floats"):
        open_images(pixels, P, values="model")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named(pixels, bad):
    x = pixels / np.float32(255)
    x[4, 0, 0, 0] = bad
    with pytest.raises(DataError, match="image 4: some values are NaN or infinite"):
        open_images(x, P)


def test_wrong_size_and_channels_say_which():
    with pytest.raises(DataError, match=r"shape \(8, 8, 3\), the model takes 4x5 with 3 channels.*Resize them to 4x5"):
        open_images(np.zeros((2, 8, 8, 3), np.uint8), P)
    for shape, channels in (((4, 5, 1), 1), ((4, 5, 4), 4), ((1, 4, 5), 1)):
        with pytest.raises(DataError, match=f"have {channels} channels, the model takes 4x5 with 3 channels"):
            open_images(np.zeros((2, *shape), np.uint8), P)
    with pytest.raises(DataError, match="have 1 channel, the model takes 4x5 with 3"):
        open_images(np.zeros((2, 4, 5), np.uint8), P)
    with pytest.raises(DataError, match="have 3 channels, the model takes 4x5 with 1 channel"):
        open_images(np.zeros((2, 4, 5, 3), np.uint8), GRAY)


def test_gray_arrays_for_a_gray_model():
    values = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    want = (values / 255.0)[:, None]
    for spelling in (values, values[..., None], values[:, None]):
        assert np.allclose(all_x(open_images(spelling, GRAY)), want, atol=1e-7)


def test_a_shape_that_reads_both_ways_is_refused():
    cube = Preprocessing(3, 3)
    with pytest.raises(DataError, match="could be height, width, channels"):
        open_images(np.zeros((1, 3, 3, 3), np.uint8), cube)


def test_channels_last_models():
    last = Preprocessing(4, 5, layout="NHWC", mean=(0.5,) * 3, std=(0.5,) * 3)
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3)).astype(np.float32)
    assert np.array_equal(all_x(open_images(x, last)), x)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    assert np.array_equal(all_x(open_images(pixels, last)), expected(pixels.transpose(0, 2, 3, 1), last))


class Dataset:
    """As other libraries have them: a length and items, an IndexError or worse beyond the end, no __iter__."""

    def __init__(self, images):
        self.images, self.asked = images, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        if not 0 <= i < len(self.images):
            raise RuntimeError("asked beyond the end")
        self.asked.append(i)
        return self.images[i], np.int64(i % 2)


def test_data_sets_are_read_again_and_not_kept(pixels):
    data = Dataset(pixels)
    images = open_images(data, P)
    # One look at the first tells single images from batches, then one at each.
    assert data.asked == [0, *range(6)]
    assert images.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert np.array_equal(all_x(images), expected(pixels))
    assert data.asked == [0, *range(6), *range(6)]


def test_a_data_set_that_changes_shape_is_caught(pixels):
    data = list(pixels)
    images = open_images(data, P)
    data[2] = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(DataError, match=r"image 2: the shape is \(9, 9, 3\) now"):
        all_x(images)


def test_generators_are_read_once_and_can_be_used_again(pixels):
    read = []
    images = open_images(((read.append(i), (image, i))[1] for i, image in enumerate(pixels)), P)
    for _ in range(2):
        assert np.array_equal(all_x(images), expected(pixels))
    assert read == images.labels.tolist() == list(range(6))


def test_a_loader_that_reuses_its_buffer_does_not_spoil_what_is_kept(pixels):
    def loader():
        buffer = np.empty_like(pixels[0])
        for image in pixels:
            buffer[:] = image
            yield buffer

    assert np.array_equal(all_x(open_images(loader(), P)), expected(pixels))


def test_what_must_be_kept_is_bounded(pixels, monkeypatch):
    monkeypatch.setattr(iterables, "KEEP_BYTES", 3 * pixels[0].nbytes)

    def endless():
        while True:
            yield pixels[0]

    with pytest.raises(DataError, match=r"read only once are kept.*uncompressed \.npz"):
        open_images(endless(), P)
    assert open_images(list(pixels), P).count == 6


def test_loaders_of_batches_are_taken_apart(pixels):
    x = expected(pixels)
    for loader in (
        [[x[:4], np.arange(4)], [x[4:], np.arange(4, 6)]],
        ((x[i : i + 2], np.arange(i, i + 2)) for i in range(0, 6, 2)),
    ):
        images = open_images(loader, P)
        assert images.labels.tolist() == list(range(6))
        assert np.array_equal(all_x(images), x)
    assert np.array_equal(all_x(open_images([x[i : i + 1] for i in range(6)], P)), x)


def test_a_pair_of_images_and_labels(pixels):
    for labels in (np.arange(6), [0, 1, 2, 3, 4, 5]):
        images = open_images((pixels, labels), P)
        assert images.labels.tolist() == list(range(6))
        assert np.array_equal(all_x(images), expected(pixels))


def test_a_tuple_of_two_images_is_not_such_a_pair(pixels):
    assert open_images((pixels[0], pixels[1]), P).count == 2
    assert open_images(((pixels[0], 1), (pixels[1], 0)), P).labels.tolist() == [1, 0]


def test_pillow_images(pixels):
    images = open_images([(Image.fromarray(image), i) for i, image in enumerate(pixels)], P)
    assert np.array_equal(all_x(images), expected(pixels))
    assert open_images([Image.new("L", (5, 4))], GRAY).image(0).shape == (4, 5, 1)


@pytest.mark.parametrize("label", ["rock", -1, [["a"]], 1 << 40, object()])
def test_labels_that_are_no_class_numbers(pixels, label):
    with pytest.raises(DataError):
        open_images([(pixels[0], label)], P)


@pytest.mark.parametrize(
    "targets",
    [
        np.arange(6) / 2,
        np.eye(6, dtype=np.int64),
        np.arange(6 * 4 * 5).reshape(6, 4, 5) % 3,
        [np.arange(length) for length in range(1, 7)],
        [{"boxes": np.zeros((n, 4)), "labels": np.arange(n)} for n in range(6)],
    ],
    ids=["values", "rows", "maps", "sequences", "boxes"],
)
def test_labels_of_any_other_form_are_targets(pixels, targets):
    whole = open_images((pixels, targets), P)
    pairs = open_images(list(zip(pixels, targets, strict=True)), P)
    for images in (whole, pairs, pairs.subset(6)):
        assert images.labels is None
        for found, wanted in zip(images.targets, targets, strict=True):
            np.testing.assert_equal(found, wanted)
    chosen = whole.subset(2)
    first = whole.places.index(chosen.places[0])
    np.testing.assert_equal(chosen.targets[0], targets[first])
    assert whole.fingerprint() == pairs.fingerprint() != open_images(pixels, P).fingerprint()


def test_items_with_and_without_labels(pixels):
    for items in ([(pixels[0], 1), pixels[1]], [pixels[0], (pixels[1], 1)]):
        with pytest.raises(DataError, match="item 1: some images have a label and some have none"):
            open_images(items, P)


def test_nothing_given():
    for nothing in ([], iter(()), np.zeros((0, 4, 5, 3), np.uint8), np.zeros(0)):
        with pytest.raises(DataError, match=r"no images|not a set of images"):
            open_images(nothing, P)


@pytest.mark.parametrize("item", ["a.png", None, np.array([True]), np.array(["a"]), [[1, 2], [3]], 1j])
def test_items_that_are_no_images(item):
    with pytest.raises(DataError, match="item 0"):
        open_images([item], P)


def test_mixed_shapes_and_kinds_name_the_item(pixels):
    with pytest.raises(DataError, match=r"image 1: the shape is \(2, 5, 3\)"):
        open_images([pixels[0], pixels[0][:2]], P)
    with pytest.raises(DataError, match="image 1: the dtype is float32"):
        open_images([pixels[0], pixels[0].astype(np.float32)], P)


@given(st.integers(1, 5), st.integers(1, 7))
def test_one_image_or_many_in_any_batch_size(count, size):
    images = open_images(np.zeros((count, 4, 5, 3), np.uint8), P)
    assert [len(batch.x) for batch in images.batches(size)] == [
        min(size, count - start) for start in range(0, count, size)
    ]

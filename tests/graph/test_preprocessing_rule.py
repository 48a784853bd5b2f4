"""The arithmetic before the network, and what a stranger's metadata may say."""

import json

import numpy as np
import pytest
from graph_models import conv_model
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from lowbit.errors import DataError, ModelError
from lowbit.graph.load import load
from lowbit.graph.preprocessing import COLORS, IMAGENET_MEAN, IMAGENET_STD, METADATA_KEY, RGB, Preprocessing

finite = st.floats(-1e6, 1e6, width=32)
positive = st.floats(0.0009765625, 1e6, width=32)


@st.composite
def rules(draw):
    channels = draw(st.sampled_from((1, 3, 4)))
    return Preprocessing(
        draw(st.integers(1, 9)),
        draw(st.integers(1, 9)),
        channels,
        draw(st.sampled_from(("NCHW", "NHWC"))),
        draw(positive),
        tuple(draw(finite) for _ in range(channels)),
        tuple(draw(positive) for _ in range(channels)),
        draw(st.none() | st.floats(0.1, 1.0)),
        draw(st.sampled_from(COLORS if channels == 3 else (RGB,))),
    )


@given(rules(), st.integers(0, 1 << 30))
def test_json_and_arithmetic(rule, seed):
    assert Preprocessing.from_json(rule.to_json()) == rule
    image = np.random.default_rng(seed).integers(0, 256, rule.image_shape, dtype=np.uint8)
    x = rule.apply(image)
    image = image if rule.colors == RGB else image[..., ::-1]
    wanted = (image.astype(np.float32) * np.float32(rule.scale) - np.float32(rule.mean)) / np.float32(rule.std)
    np.testing.assert_array_equal(x if rule.layout == "NHWC" else x.transpose(1, 2, 0), wanted)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous


def test_by_hand():
    rule = Preprocessing(1, 2, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    x = rule.apply(np.array([[[0, 128, 255], [255, 0, 51]]], np.uint8))
    assert x.shape == (3, 1, 2)
    np.testing.assert_allclose(
        x[:, 0, 0], [-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-6
    )


@pytest.mark.parametrize("image", [np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8), np.zeros((5, 4, 3))])
def test_a_wrong_image_is_named(image):
    with pytest.raises(DataError, match=r"takes uint8 \[5, 4, 3\]"):
        Preprocessing(5, 4).apply(image)


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 0}, {"height": 1 << 40}, {"width": -1}, {"width": 8.0}, {"width": True}, {"channels": 5},
        {"layout": "CHWN"}, {"layout": ["NCHW"]}, {"scale": 0}, {"scale": "1"}, {"scale": 1e300}, {"scale": None},
        {"mean": [0, 0]}, {"mean": 0.5}, {"mean": [0, 0, "0"]}, {"std": [1, 1, 0]}, {"std": [1, 1, -1]},
        {"colors": "GBR"}, {"colors": ["BGR"]}, {"channels": 1, "mean": [0], "std": [1], "colors": "BGR"},
        {"std": [1, 1, 10**400]}, {"std": {"a": 1}}, {"std": [[1], [1], [1]]}, {"name": "x"},
    ],
)  # fmt: skip
def test_values_that_cannot_be(changes):
    entries = json.loads(Preprocessing(8, 8).to_json()) | changes
    with pytest.raises(ModelError, match=r"lowbit.preprocessing|preprocessing ") as caught:
        Preprocessing.from_json(json.dumps(entries))
    assert "metadata entry" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nul",
        "[1]",
        '"x"',
        "{}",
        '{"height": 8}',
        '{"height": NaN, "width": 8}',
        '{"height": 8, "width": 8, "scale": Infinity}',
        "[" * 4000,
        " " * 5000,
    ],
)
def test_text_that_is_no_rule(text):
    with pytest.raises(ModelError):
        Preprocessing.from_json(text)


def test_it_comes_with_the_model():
    rule = Preprocessing(8, 8, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    model = conv_model()
    assert load(model).preprocessing is None
    helper.set_model_props(model, {METADATA_KEY: rule.to_json()})
    loaded = load(model)
    assert loaded.preprocessing == rule
    assert load(loaded.to_bytes()).preprocessing == rule


@pytest.mark.parametrize(
    ("sides", "crop", "wanted"),
    [
        ((100, 100), 1.0, (0, 100, 0, 100)),
        ((100, 100), 0.8, (10, 90, 10, 90)),
        ((60, 100), 1.0, (0, 60, 20, 80)),
        ((100, 60), 0.5, (35, 65, 15, 45)),
        ((100, 60), None, (0, 100, 0, 60)),
        ((1, 1), 0.01, (0, 1, 0, 1)),
    ],
)
def test_the_middle_of_an_image(sides, crop, wanted):
    image = np.arange(sides[0] * sides[1] * 3).reshape(*sides, 3)
    top, bottom, left, right = wanted
    np.testing.assert_array_equal(Preprocessing(24, 24, crop=crop).cropped(image), image[top:bottom, left:right])


def test_the_middle_has_the_proportions_of_the_input():
    assert Preprocessing(10, 30, crop=1.0).cropped(np.zeros((90, 90, 3))).shape == (30, 90, 3)
    assert Preprocessing(30, 10, crop=0.5).cropped(np.zeros((90, 90, 3))).shape == (45, 15, 3)


@pytest.mark.parametrize("crop", [0, -0.5, 1.01, float("nan"), "0.9", True, [0.5]])
def test_a_share_that_is_none_is_refused(crop):
    with pytest.raises(ModelError, match="preprocessing crop is"):
        Preprocessing(8, 8, crop=crop)


def test_json_says_only_what_earlier_versions_know_where_that_is_enough():
    assert not {"crop", "colors"} & json.loads(Preprocessing(8, 8).to_json()).keys()
    assert json.loads(Preprocessing(8, 8, crop=0.875).to_json())["crop"] == 0.875
    assert json.loads(Preprocessing(8, 8, colors="BGR").to_json())["colors"] == "BGR"


def test_blue_first():
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    mean = (103.939 / 255, 116.779 / 255, 123.68 / 255)  # Caffe's, blue first
    rule = Preprocessing(2, 3, mean=mean, std=(1 / 255,) * 3, colors="BGR")
    np.testing.assert_allclose(rule.apply(image)[0], image[..., 2] - np.float32(103.939), rtol=1e-4, atol=1e-4)
    assert str(rule).startswith("2x3 pixels in BGR order, mean 0.4076,0.458,0.485")

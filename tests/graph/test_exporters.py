"""What exporters say of preprocessing is followed where it fits, named, and never trusted."""

import json
import os

import numpy as np
import onnx
import pytest

import lowbit
import networks
from graphs import make, make_node
from lowbit.graph.exporters import EXPORTERS, stated_preprocessing
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, METADATA_KEY, Preprocessing

SHAPE = ("n", 3, 16, 16)
OPEN = ("n", 3, "height", "width")
MEAN, STD = list(IMAGENET_MEAN), list(IMAGENET_STD)
DETECTOR = {"author": "Ultralytics", "stride": "32", "task": "detect", "imgsz": "[480, 640]", "names": "{0: 'person'}"}
TIMM = {
    "architecture": "resnet18",
    "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.95, "crop_mode": "center", "mean": MEAN, "std": STD},
}
PROCESSOR = {
    "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256},
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD,
}  # fmt: skip
MACHINE = {"tmVersion": "2.4.7", "packageName": "@teachablemachine/image", "labels": ["a", "b"], "imageSize": 224}


def beside(folder, name, said, shape=OPEN):
    (folder / name).write_text(json.dumps(said))
    return stated_preprocessing({}, folder, shape)


def how(*size, **others):
    return Preprocessing(*size, **others)


HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
OLD_VIT = {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224}
BYTES = {"do_rescale": False, "do_normalize": True, "image_mean": [127.5] * 3, "image_std": [127.5] * 3, "size": [8, 9]}
CONVNEXT = {"image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": 224}, "crop_pct": 0.875}
SCALED = {"do_rescale": True, "do_normalize": False, "size": {"height": 240, "width": 320}, "rescale_factor": 1 / 127.5}
FLIPPED = {"do_flip_channel_order": True}  # the last that is done: numbers are in the order of the image
TURNED = {"mean": IMAGENET_MEAN[::-1], "std": IMAGENET_STD[::-1]}
FLAT_TIMM = {"input_size": [3, 160, 160], "crop_pct": 1.0, "mean": [0.5], "std": [0.5]}


@pytest.mark.parametrize(
    ("name", "said", "wanted"),
    [
        ("config.json", TIMM, how(224, 224, crop=0.95, **IMAGENET)),
        ("config.json", FLAT_TIMM, how(160, 160, crop=1.0, **HALF)),
        ("preprocessor_config.json", PROCESSOR, how(224, 224, crop=0.875, **IMAGENET)),
        ("preprocessor_config.json", OLD_VIT, how(224, 224, **HALF)),
        ("preprocessor_config.json", BYTES, how(8, 9, scale=1.0, mean=(127.5,) * 3, std=(127.5,) * 3)),
        ("preprocessor_config.json", CONVNEXT, how(224, 224, crop=0.875, **IMAGENET)),
        ("preprocessor_config.json", CONVNEXT | {"size": {"shortest_edge": 384}}, how(384, 384, **IMAGENET)),
        ("preprocessor_config.json", SCALED, how(240, 320, scale=1 / 127.5)),
        ("preprocessor_config.json", PROCESSOR | FLIPPED, how(224, 224, crop=0.875, colors="BGR", **TURNED)),
        ("preprocessor_config.json", SCALED | FLIPPED, how(240, 320, scale=1 / 127.5, colors="BGR")),
        ("metadata.json", MACHINE, how(224, 224, crop=1.0, **HALF)),
    ],
)
def test_a_file_beside_the_model(tmp_path, name, said, wanted):
    found, note = beside(tmp_path, name, said)
    assert found == wanted
    assert str(tmp_path / name) in note
    assert str(wanted) in note


def test_ultralytics_in_the_models_own_metadata():
    found, note = stated_preprocessing(DETECTOR, None, OPEN)
    assert found == how(480, 640)
    assert "Ultralytics says in the model's metadata" in note
    assert "stretches" in note
    classifier = DETECTOR | {"task": "classify", "imgsz": "[224, 224]"}
    assert stated_preprocessing(classifier, None, OPEN)[0] == how(224, 224, crop=1.0)


def test_the_models_own_size_and_layout_are_kept(tmp_path):
    assert beside(tmp_path, "config.json", TIMM, SHAPE)[0].image_shape == (16, 16, 3)
    found, _ = beside(tmp_path, "config.json", TIMM, ("n", 32, 48, 3))
    assert (found.layout, found.image_shape) == ("NHWC", (32, 48, 3))


def test_repositories_keep_models_in_a_folder_below(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    assert stated_preprocessing({}, tmp_path / "onnx", OPEN)[0].crop == 0.875
    (tmp_path / "other").mkdir()
    assert stated_preprocessing({}, tmp_path / "other", OPEN) == (None, "")


@pytest.mark.parametrize(
    "change",
    [
        {"image_std": [0.0, 1.0, 1.0]},
        {"image_mean": ["0.5"] * 3},
        {"image_mean": [0.5] * 4},
        {"image_mean": {"r": 0.5}},
        {"image_mean": [float("nan")] * 3},
        {"image_std": None},
        {"rescale_factor": 0},
        {"rescale_factor": "1/255"},
        {"rescale_factor": 10**400},
        {"crop_size": {"height": -1, "width": 10**9}},
        {"crop_size": "224"},
        {"crop_size": [1, 2, 3]},
        {"crop_size": True},
        {"crop_size": {}},
        {"crop_size": []},
        {"crop_size": 10**400},
        {"do_center_crop": False, "size": {"height": 1 << 40, "width": 224.0}},
    ],
)
def test_what_is_wrong_is_named_and_not_followed(tmp_path, change):
    found, note = beside(tmp_path, "preprocessor_config.json", PROCESSOR | change)
    assert found is None
    assert note.startswith("What Hugging Face says in")
    assert len(note) < 600


@pytest.mark.parametrize("size", [[], 10**400, {"shortest_edge": 10**400}, {"longest_edge": 256}])
def test_without_a_size_to_crop_from_all_is_taken(tmp_path, size):
    found, _ = beside(tmp_path, "preprocessor_config.json", PROCESSOR | {"size": size})
    assert found is not None
    assert found.crop == 1.0


def test_a_model_of_a_billion_channels_takes_no_memory(tmp_path):
    said = PROCESSOR | {"image_mean": [0.5], "image_std": [0.5]}
    found, note = beside(tmp_path, "preprocessor_config.json", said, shape=("n", 1 << 40, 16, 16))
    assert (found, "channels" in note) == (None, True)


@pytest.mark.parametrize(
    "imgsz", ["[640", "[[[" * 60, "__import__('os').abort()", "640 " * 500, "{1: 2}", "[1, 2, 3]", ""]
)
def test_a_hostile_literal_is_not_run(imgsz):
    found, note = stated_preprocessing(DETECTOR | {"imgsz": imgsz}, None, OPEN)
    assert found is None
    assert "is not followed" in note


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b'"text"', b"[1]", b"null", b"\xff\xfe", b'{"a": ' + b"9" * 9000 + b"}", b"{}"],
)
@pytest.mark.parametrize("name", [each.file for each in EXPORTERS if each.file])
def test_what_is_no_exporters_file_says_nothing(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert stated_preprocessing({}, tmp_path, OPEN) == (None, "")


def test_neither_pipes_nor_folders_nor_large_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    (tmp_path / "metadata.json").mkdir()
    with (tmp_path / "preprocessor_config.json").open("wb") as file:
        file.truncate(1 << 33)
    assert stated_preprocessing({}, tmp_path, OPEN) == (None, "")


@pytest.mark.parametrize("said", [{"sampling_rate": 16000, "feature_size": 80}, {"vocab_size": 30522, "id2label": {}}])
def test_files_of_networks_that_do_not_see_say_nothing(tmp_path, said):
    for name in ("config.json", "preprocessor_config.json"):
        assert beside(tmp_path, name, said) == (None, "")


def saved(folder, **metadata):
    proto = networks.residual_network()
    for key, value in metadata.items():
        proto.metadata_props.add(key=key.replace("__", "."), value=value)
    onnx.save(proto, folder / "net.onnx")
    return folder / "net.onnx"


def test_lowbits_own_metadata_comes_first(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    own = Preprocessing(16, 16, mean=(0.1,) * 3)
    model = lowbit.load(saved(tmp_path, **{METADATA_KEY: own.to_json()}, **DETECTOR))
    assert (model.preprocessing, model.preprocessing_note) == (own, "")


def test_a_model_is_loaded_with_it_and_files_made_of_it_say_it(tmp_path):
    model = lowbit.load(saved(tmp_path, **DETECTOR))
    assert model.preprocessing == Preprocessing(16, 16)
    lowbit.quantize(model, "linear4").save(tmp_path / "small.onnx")
    again = onnx.load(tmp_path / "small.onnx")
    kept = {entry.key: entry.value for entry in again.metadata_props}
    assert Preprocessing.from_json(kept[METADATA_KEY]) == model.preprocessing


def test_a_network_that_takes_no_images_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    nodes = [make_node("MatMul", "x w", "y")]
    onnx.save(make(nodes, {"x": ["n", 8]}, {"y": ["n", 2]}, {"w": np.ones((8, 2), np.float32)}), tmp_path / "flat.onnx")
    model = lowbit.load(tmp_path / "flat.onnx")
    assert (model.preprocessing, model.preprocessing_note) == (None, "")

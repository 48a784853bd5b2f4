"""`lowbit prepare`: the answer is given once and kept, and never guessed unasked; nothing more has to be said then."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import lowbit
import networks
from graphs import make, make_node
from lowbit.graph.exporters import EXPORTERS
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from test_cli import run

pytestmark = pytest.mark.usefixtures("quick_measuring")
SIDE = 8
MEAN, STD = IMAGENET_MEAN, IMAGENET_STD


def color_network():
    """Tells red, green and blue images, normalized as ImageNet's, from one another and from all that is far from these.

    The score of a color is -4 times the squared distance from its center, and that of anything else is -3, all but for
    what they have in common.
    """
    center = np.array([[1.3, -1.5, -1.3], [-1.6, 1.5, -1.3], [-1.6, -1.5, 1.7]], np.float32)
    nodes = [
        make_node("GlobalAveragePool", "x", "mean"),
        make_node("Flatten", "mean", "flat"),
        make_node("Gemm", "flat w b", "colors", name="fc", transB=1),
        make_node("Mul", "flat flat", "squares"),
        make_node("Gemm", "squares s t", "other", name="other", transB=1),
        make_node("Concat", "colors other", "logits", axis=1),
    ]
    shapes = {"x": ["n", 3, SIDE, SIDE]}, {"logits": ["n", 4]}
    far = {"s": np.full((1, 3), 4, np.float32), "t": np.full(1, -3, np.float32)}
    return make(nodes, *shapes, {"w": 8 * center, "b": -4 * (center**2).sum(1), **far})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An ordinary ONNX file, and images in class folders."""
    root = tmp_path_factory.mktemp("user")
    onnx.save(color_network(), root / "net.onnx")
    generator = np.random.default_rng(0)
    for label in range(4):  # red, green, blue, gray
        (root / "test" / f"c{label}").mkdir(parents=True)
        for index in range(8):
            pixels = generator.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
            colored = slice(label, label + 1) if label < 3 else slice(3)
            pixels[:, :, colored] = generator.integers(150, 255, (SIDE, SIDE, 1), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "test" / f"c{label}" / f"{index}.png")
    return root


def test_said_once_every_command_works(place, tmp_path, capsys):
    copy = tmp_path / "copy.onnx"
    options = ("--mean", "imagenet", "--std", "imagenet", "-o", copy)
    code, out, err = run("prepare", place / "net.onnx", *options, capsys=capsys)
    assert (code, err) == (0, "")
    how = Preprocessing(SIDE, SIDE, mean=MEAN, std=STD)
    assert out == f"Wrote {copy}: images become the input as {how}.\n"
    assert lowbit.load(copy).preprocessing == how
    data, calibration = ("--data", place / "test"), ("--calibration", place / "test")
    for command in (
        ("inspect", copy),
        (
            "quantize",
            copy,
            "-r",
            "int8",
            *calibration,
            "--input",
            "uint8",
            "--effort",
            "fast",
            "-o",
            tmp_path / "bytes.onnx",
        ),
        ("measure", copy, tmp_path / "bytes.onnx", *data, "--runs", 0),
        ("compare", copy, *data, "--recipes", "linear4", "--runs", 0, "--out", tmp_path / "out"),
    ):
        code, _, err = run(*command, capsys=capsys)
        assert code == 0, (command, err)


def test_before_that_the_error_names_the_command(place, tmp_path, capsys):
    onnx.save(color_network(), tmp_path / "a b.onnx")
    code, _, err = run("measure", tmp_path / "a b.onnx", "--data", place / "test", capsys=capsys)
    assert code == 2
    command = shlex.split(err.partition("`")[2].partition("`")[0])
    assert command[:2] == ["lowbit", "prepare"]
    assert run(*command[1:], capsys=capsys)[0] == 0
    prepared = tmp_path / "a b-prepared.onnx"
    assert run("measure", prepared, "--data", place / "test", "--runs", 0, capsys=capsys)[0] == 0


def test_what_is_assumed_for_one_run_is_said(place, capsys):
    how = ("measure", place / "net.onnx", "--data", place / "test", "--runs", 0)
    code, _, err = run(*how, "--layout", "NCHW", capsys=capsys)
    assert (code, err.splitlines()[0][:44]) == (0, "Note: Pixels are taken with mean 0 and std 1")
    assert "taken with std 1, on" in run(*how, "--mean", "0.5", capsys=capsys)[2]


def test_a_guess_is_shown_and_not_taken(place, tmp_path, capsys):
    code, out, _ = run("prepare", place / "net.onnx", "--data", place / "test", capsys=capsys)
    assert code == 0
    assert sorted(path.name for path in place.iterdir()) == ["net.onnx", "test"]
    rows = [line for line in out.splitlines() if " RGB " in line or " BGR " in line]
    assert len(rows) == 10
    assert rows[0].startswith("ImageNet's mean and spread")
    command = shlex.split(out.replace("\n", " ").partition("lowbit prepare ")[2])
    command[command.index("-o") + 1] = str(tmp_path / "offered.onnx")
    assert run("prepare", *command, capsys=capsys)[0] == 0
    accepted = ("prepare", place / "net.onnx", "--data", place / "test", "--accept-guess", "-o", tmp_path / "copy.onnx")
    code, out, _ = run(*accepted, "--json", capsys=capsys)
    said = json.loads(out)
    assert code == 0
    assert len(said["guesses"]) == 10
    assert said["guesses"][0]["accuracy"] == 1
    wanted = Preprocessing(SIDE, SIDE, mean=MEAN, std=STD)
    assert lowbit.load(tmp_path / "copy.onnx").preprocessing == wanted
    assert lowbit.load(tmp_path / "offered.onnx").preprocessing == wanted


def test_without_labels_the_answers_tell(place, tmp_path, capsys):
    pixels = [lowbit.open_images(place / "test", None).image(index) for index in range(32)]
    np.savez(tmp_path / "x.npz", images=np.stack(pixels))
    code, out, _ = run("prepare", place / "net.onnx", "--data", tmp_path / "x.npz", "--json", capsys=capsys)
    ranking = json.loads(out)["guesses"]
    assert code == 0
    assert ranking[0]["accuracy"] is None
    assert [each["information"] for each in ranking] == sorted((each["information"] for each in ranking), reverse=True)


def test_what_an_exporter_says_is_kept_and_named(place, tmp_path, capsys):
    onnx.save(color_network(), tmp_path / "net.onnx")
    said = {"image_mean": list(MEAN), "image_std": list(STD), "size": SIDE}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    code, _, err = run("measure", tmp_path / "net.onnx", "--data", place / "test", "--runs", 0, capsys=capsys)
    assert code == 0
    assert err.startswith("Note: Images become the input as Hugging Face says in ")
    assert "Hugging Face" in run("inspect", tmp_path / "net.onnx", capsys=capsys)[1].replace("\n", " ")
    own = ("--mean", "0.5", "--std", "0.5")
    code, _, err = run("measure", tmp_path / "net.onnx", "--data", place / "test", *own, "--runs", 0, capsys=capsys)
    assert (code, "Hugging Face" in err) == (0, False)
    code, _, err = run("prepare", tmp_path / "net.onnx", "-o", tmp_path / "kept.onnx", capsys=capsys)
    assert "Hugging Face" in err
    (tmp_path / "preprocessor_config.json").unlink()
    assert lowbit.load(tmp_path / "kept.onnx").preprocessing == Preprocessing(SIDE, SIDE, mean=MEAN, std=STD)


def test_labels_follow_the_names_of_the_models_classes(place, tmp_path, capsys):
    onnx.save(color_network(), tmp_path / "net.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {0: "C0", 1: "c1", 2: "c2", 3: "c3"}}))
    prepared = ("prepare", tmp_path / "net.onnx", "--mean", "imagenet", "--std", "imagenet")
    assert run(*prepared, "-o", tmp_path / "kept.onnx", capsys=capsys)[0] == 0
    (tmp_path / "config.json").unlink()
    assert "Classes: C0, c1, c2, c3." in run("inspect", tmp_path / "kept.onnx", capsys=capsys)[1]
    test = shutil.copytree(place / "test", tmp_path / "test")
    (test / "c0").rename(test / "red"), (test / "c1").rename(test / "Green")
    measure = ("measure", tmp_path / "kept.onnx", "--data", test, "--runs", 0, "--json")
    code, out, err = run(*measure, capsys=capsys)
    assert (code, json.loads(out)["rows"][0]["accuracy"]) == (0, 0.0)  # Green, c2, c3, red
    assert "calls its classes C0, c1, c2, c3, the images Green, c2, c3, red" in err.replace("\n", " ")

    proto = onnx.load(tmp_path / "kept.onnx")
    onnx.helper.set_model_props(
        proto, {e.key: e.value for e in proto.metadata_props} | {"lowbit.classes": '["red", "green", "c2", "c3"]'}
    )
    onnx.save(proto, tmp_path / "kept.onnx")
    code, out, err = run(*measure, capsys=capsys)
    result = json.loads(out)
    assert (code, result["rows"][0]["accuracy"]) == (0, 1.0)
    assert result["model"]["classes"] == ["red", "green", "c2", "c3"]
    assert "Classes count in the model's order: red, green, c2, c3." in err.replace("\n", " ")
    shutil.rmtree(test / "c2")  # without names, a folder of some of the classes is refused
    assert json.loads(run(*measure, capsys=capsys)[1])["rows"][0]["accuracy"] == 1.0
    int8 = lowbit.quantize(tmp_path / "kept.onnx", "linear8").save(tmp_path / "int8.onnx")
    assert lowbit.load(int8).class_names == ("red", "green", "c2", "c3")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "OUT.onnx"], "does not say how images become its input"),
        ([], "there is no file to write"),
        (["--mean", "0.5", "-o", "OUT.onnx"], "--mean and --std belong together"),
        (["--mean", "0.5", "--std", "0.5", "-o", "OUT.tflite"], "does not say what kind of file"),
        (["--mean", "0.5", "--std", "0.5", "-o", "net.onnx"], "is what the command reads"),
        (["--mean", "0.5", "--std", "0", "-o", "OUT.onnx"], "preprocessing std"),
        (["--mean", "0.5", "--std", "0.5", "--crop", "2", "-o", "OUT.onnx"], "preprocessing crop"),
        (["--mean", "0.5", "--std", "0.5", "--image-size", "9", "-o", "OUT.onnx"], "does not fit"),
        (["--accept-guess", "-o", "OUT.onnx"], "nothing to guess by"),
        (["--data", "test", "-o", "OUT.onnx"], "a guess is written only where it is accepted"),
        (["--data", "test", "--accept-guess"], "a guess is written only where it is accepted"),
        (["--data", "test", "--mean", "0.5", "--std", "1"], "--data is there to find"),
        (["--data", "test/c0"], "8 images say nothing"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(place, monkeypatch, capsys, words, said):
    monkeypatch.chdir(place)
    code, _, err = run("prepare", "net.onnx", *words, capsys=capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert sorted(path.name for path in place.iterdir()) == ["net.onnx", "test"]


def test_colors_the_other_way_round_are_not_written(place, tmp_path, capsys):
    proto = color_network()
    weights = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights[:, ::-1].copy(), "w"))
    onnx.save(proto, tmp_path / "bgr.onnx")
    words = ("--data", place / "test", "--accept-guess", "-o", tmp_path / "copy.onnx")
    code, out, err = run("prepare", tmp_path / "bgr.onnx", *words, capsys=capsys)
    assert code == 2
    assert "BGR" in out.splitlines()[2]
    assert "BGR colors" in err
    code, out, _ = run("prepare", tmp_path / "bgr.onnx", "--data", place / "test", capsys=capsys)
    assert code == 0
    assert "To accept" not in out
    assert "BGR colors, which a file cannot say" in out.replace("\n", " ")
    assert not (tmp_path / "copy.onnx").exists()


def test_classes_of_other_numbers_are_noticed(place, tmp_path, capsys):
    labels = np.repeat([1, 2, 3, 0], 8)
    np.save(tmp_path / "labels.npy", labels)
    words = ("--data", place / "test", "--labels", tmp_path / "labels.npy")
    code, _, err = run("prepare", place / "net.onnx", *words, capsys=capsys)
    assert code == 2
    assert "number the classes in another way" in err


def test_arrays_that_are_prepared_already_say_nothing(place, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(20, 3, SIDE, SIDE)).astype(np.float32))
    code, _, err = run("prepare", place / "net.onnx", "--data", tmp_path / "x.npz", capsys=capsys)
    assert code == 2
    assert "the model's inputs already" in err


def test_a_network_without_classes_cannot_be_guessed(place, tmp_path, capsys):
    nodes = [make_node("Conv", "x w", "y", kernel_shape=[1, 1])]
    weights = {"w": np.ones((4, 3, 1, 1), np.float32)}
    onnx.save(make(nodes, {"x": ["n", 3, SIDE, SIDE]}, {"y": ["n", 4, SIDE, SIDE]}, weights), tmp_path / "map.onnx")
    code, _, err = run("prepare", tmp_path / "map.onnx", "--data", place / "test", capsys=capsys)
    assert code == 2
    assert "no scores of classes" in err


def test_the_examples_of_the_page_run_on_an_ordinary_file(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "prepare.md").read_text(encoding="utf-8")
    onnx.save(networks.residual_network(), tmp_path / "mobilenet.onnx")
    generator = np.random.default_rng(0)
    for part in ("test", "calibration"):
        for label in range(networks.CLASSES):
            (tmp_path / part / f"c{label}").mkdir(parents=True)
            for index in range(4):
                pixels = generator.integers(0, 256, (networks.SIDE, networks.SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / f"c{label}" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
        for line in block.splitlines():
            command = shlex.split(line, comments=True)[1:]
            command += {"quantize": ["--effort", "fast"], "measure": ["--runs", "0"]}.get(command[0], [])
            code, _, err = run(*command, capsys=capsys)
            # What random weights are at home with is chance, and may be BGR.
            assert code == 0 or "BGR colors" in err, (line, err)
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(example, "prepare.md", "exec"), {})
    assert lowbit.load("prepared.onnx").preprocessing.mean == IMAGENET_MEAN


def test_the_page_names_every_exporter_and_its_file():
    page = (Path(__file__).parents[2] / "docs" / "prepare.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w ]+) \| (.*?) \|", page.partition("## What exporters say")[2], re.MULTILINE)
    assert {name for name, _ in rows} - {"exporter"} == {each.name for each in EXPORTERS}
    assert all(each.file in dict(rows)[each.name] for each in EXPORTERS)

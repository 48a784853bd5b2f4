import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lowbit.data.hands import builtin  # noqa: E402
from lowbit.engines.session import open_session  # noqa: E402
from lowbit.errors import DataError, OutputError  # noqa: E402
from lowbit.graph.load import load  # noqa: E402
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing  # noqa: E402
from lowbit.training.export import to_onnx  # noqa: E402
from lowbit.training.mobilenet import MobileNetV2  # noqa: E402
from lowbit.training.pixels import read_pixels, stratified_split  # noqa: E402
from lowbit.training.recipes import FINE_TUNING, FROM_SCRATCH  # noqa: E402
from lowbit.training.train import TrainingData, train  # noqa: E402

SIZE = 32
FEW = TrainingData("builtin:train", size=SIZE, limit=36)
PREPROCESSING = Preprocessing(height=SIZE, width=SIZE, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def test_the_split_is_stratified_and_repeatable() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 7])
    training, validation = stratified_split(labels, share=0.1, seed=0)
    assert np.bincount(labels[validation]).tolist() == [10, 5, 1]
    assert sorted([*training, *validation]) == list(range(157))
    assert np.array_equal(validation, stratified_split(labels, share=0.1, seed=0)[1])
    assert not np.array_equal(validation, stratified_split(labels, share=0.1, seed=1)[1])
    with pytest.raises(DataError, match="class 1 has a single image"):
        stratified_split(np.array([0, 0, 1]), share=0.1, seed=0)


def test_the_file_computes_what_torch_computes() -> None:
    torch.manual_seed(0)
    model = MobileNetV2(3)
    model(torch.randn(8, 3, SIZE, SIZE))  # moves the running statistics away from 0 and 1
    model.eval()
    serialized = to_onnx(model, preprocessing=PREPROCESSING, class_names=("a", "b", "c"), metadata={"k": "v"})
    x = torch.randn(5, 3, SIZE, SIZE)
    with torch.inference_mode():
        expected = model(x).numpy()
    (found,) = open_session(serialized).run({"x": x.numpy()}).values()
    assert np.abs(found - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    assert serialized == to_onnx(model, preprocessing=PREPROCESSING, class_names=("a", "b", "c"), metadata={"k": "v"})


def test_one_epoch_from_scratch_leaves_three_files(tmp_path: Path, told) -> None:
    result = train(
        dataclasses.replace(FEW, test="builtin:calibration"), dataclasses.replace(FROM_SCRATCH, epochs=1),
        output=tmp_path / "m.onnx", seed=4, command="lowbit train", progress=told,
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.curve.png", "m.metrics.json", "m.onnx"]
    model = load(result.model)
    assert model.trained_parameters == result.parameters == 2_227_715
    assert model.preprocessing == PREPROCESSING
    metrics = json.loads(result.metrics.read_text())
    assert metrics["command"] == "lowbit train"
    assert metrics["data"]["classes"] == ["paper", "rock", "scissors"]
    assert metrics["seed"] == 4
    assert len(metrics["epochs"]) == metrics["best_epoch"] == 1
    assert metrics["test"]["images"] == result.test.images == 300
    assert result.curve.read_bytes().startswith(b"\x89PNG")
    assert any("epoch 1/1: loss" in note and "min left" in note for note in told.notes)


def test_fine_tuning_moves_only_the_top(tmp_path: Path) -> None:
    torch.manual_seed(1)
    pretrained = MobileNetV2(1000).state_dict()
    torch.save(pretrained, tmp_path / "w.pth")
    recipe = dataclasses.replace(FINE_TUNING, weights=str(tmp_path / "w.pth"), epochs=2)
    first = train(FEW, recipe, output=tmp_path / "a" / "m.onnx")
    metrics = json.loads(first.metrics.read_text())
    assert metrics["trained_parameters"] == 736_323
    assert metrics["recipe"]["learning_rate"] == 5e-5
    assert metrics["weights"] == str(tmp_path / "w.pth")
    kept = _tensors(first.model)
    for name in ("features.0.0.weight", "features.17.conv.0.0.weight", "features.16.conv.3.running_mean"):
        assert np.array_equal(kept[name], pretrained[name].numpy()), name
    for name in ("features.17.conv.2.weight", "features.18.1.running_mean"):
        assert not np.array_equal(kept[name], pretrained[name].numpy()), name
    second = train(FEW, recipe, output=tmp_path / "b" / "m.onnx")
    assert first.model.read_bytes() == second.model.read_bytes()


def test_what_cannot_be_trained_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be an \.onnx file"):
        train(FEW, FROM_SCRATCH, output=tmp_path / "m.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        train(FEW, FROM_SCRATCH, output=tmp_path / "file" / "m.onnx")
    with pytest.raises(DataError, match="no such file"):
        train(FEW, dataclasses.replace(FINE_TUNING, weights=str(tmp_path / "w.pth")), output=tmp_path / "m.onnx")
    with pytest.raises(DataError, match=r"epochs must be at least 1 .* not 0 and 32"):
        train(FEW, dataclasses.replace(FROM_SCRATCH, epochs=0), output=tmp_path / "m.onnx")
    with pytest.raises(DataError, match="36 of the test images are training images too"):
        train(
            TrainingData("builtin:calibration", test="builtin:calibration", size=SIZE, limit=36), FROM_SCRATCH,
            output=tmp_path / "m.onnx",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_folders_and_built_in_images_become_pixels(tmp_path: Path) -> None:
    from PIL import Image

    hands, labels = (part[:6] for part in builtin("train"))
    for index, (image, label) in enumerate(zip(hands, labels, strict=True)):
        folder = tmp_path / "set" / "abc"[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    found = read_pixels(tmp_path / "set", size=128)
    assert found.class_names == ("a", "b", "c")
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(found.images[1], hands[3])
    assert read_pixels("builtin:train", size=64, limit=9).images.shape == (9, 64, 64, 3)


def _tensors(path: Path) -> dict[str, np.ndarray]:
    import onnx

    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}

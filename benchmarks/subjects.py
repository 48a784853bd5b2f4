"""The networks that benchmarks quantize, with their images; all but the built-in one are in the folder `--data`."""

from dataclasses import dataclass
from pathlib import Path

import lowbit
from lowbit.data.images import Images
from lowbit.data.options import with_preprocessing
from lowbit.graph.model import Model
from lowbit.training.assets import built_in_model

# name -> (float file, images to calibrate on, images to test on)
FOLDERS = {
    "resnet20": ("cifar10/resnet20.onnx", "cifar10/calibration", "cifar10/test"),
    "rps128": ("rps128/mobilenet_v2.onnx", "rps128/train", "rps128/test"),
}
BUILT_IN = "builtin"
MODELS = (*FOLDERS, BUILT_IN)


@dataclass(frozen=True)
class Subject:
    """A network with the images it is quantized and measured on."""

    name: str
    path: Path
    model: Model
    calibration: Images
    test: Images


def sources(name: str, data: Path) -> tuple[Path, str, str]:
    """The float file, the calibration images and the test images of a network."""
    if name == BUILT_IN:
        return built_in_model(), "builtin:calibration", "builtin:test"
    file, calibration, test = (data / part for part in FOLDERS[name])
    return file, str(calibration), str(test)


def open_subject(name: str, data: Path, *, calibration: int, test: int | None = None) -> Subject:
    """A network with at most so many of its images, each class in proportion."""
    path, seen, unseen = sources(name, data)
    model = lowbit.load(path)
    if model.preprocessing is None:
        model = with_preprocessing(model, mean="imagenet", std="imagenet")
    images = lowbit.open_images(seen, model.preprocessing, limit=calibration)
    return Subject(name, path, model, images, lowbit.open_images(unseen, model.preprocessing, limit=test))

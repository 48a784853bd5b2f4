"""The networks that benchmarks quantize, with their images; all but the built-in one are in the folder `--data`."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

import lowbit
from lowbit.calibration.answers import float_answers
from lowbit.data.decode import decode_file
from lowbit.data.image_list import from_list
from lowbit.data.images import Images
from lowbit.data.options import ImageWords, with_preprocessing
from lowbit.data.sources import from_folder
from lowbit.graph.model import Model
from lowbit.graph.preprocessing import Preprocessing
from lowbit.training.assets import built_in_model


@dataclass(frozen=True)
class Prepared:
    """A network whose images are prepared in a way of its own.

    Args:
        file: the float file.
        calibration: folder of images, or a table with the columns `image` and `label`.
        test: likewise.
        preprocessing: of its input; images are scaled to its size bicubically.
        bgr: whether its first channel is blue.
    """

    file: str
    calibration: str
    test: str
    preprocessing: Preprocessing
    bgr: bool = False


# name -> (float file, images to calibrate on, images to test on)
FOLDERS = {
    "resnet20": ("cifar10/resnet20.onnx", "cifar10/calibration", "cifar10/test"),
    "rps128": ("rps128/mobilenet_v2.onnx", "rps128/train", "rps128/test"),
}
BUILT_IN = "builtin"
MODELS = (*FOLDERS, BUILT_IN)
DETECTOR = "fastestdet"
PREPARED = {
    "mobilenet_v2_035": Prepared(
        "rps128/mobilenet_v2_035.onnx",
        "rps128/train",
        "rps128/test",
        Preprocessing(224, 224, scale=1.0, mean=(127.5,) * 3, std=(127.5,) * 3),
    ),
    "efficientnet_lite0": Prepared(
        "imagenet/efficientnet_lite0.onnx",
        "imagenet/calibration.csv",
        "imagenet/test.csv",
        Preprocessing(224, 224, scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3),
    ),
    DETECTOR: Prepared(
        "detector/fastestdet.onnx", "detector/calibration", "detector/test", Preprocessing(352, 352), bgr=True
    ),
}
NETWORKS = (*MODELS, *PREPARED)
KERAS = "keras"  # of random weights: it can be timed, not judged
PREPARED[KERAS] = Prepared(
    "keras/mobilenet_v2.onnx",
    "rps128/train",
    "rps128/test",
    Preprocessing(128, 128, layout="NHWC", scale=1.0, mean=(127.5,) * 3, std=(127.5,) * 3),
)
PIXELS_KEPT = 512  # decoded images of each set: 77 MB at 224x224


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
    known = PREPARED.get(name)
    names = FOLDERS[name] if known is None else (known.file, known.calibration, known.test)
    file, calibration, test = (data / part for part in names)
    return file, str(calibration), str(test)


def missing(name: str, data: Path) -> str | None:
    """A sentence if the network or its images are not there."""
    if name == BUILT_IN:
        return None
    absent = [Path(path).name for path in sources(name, data) if not Path(path).exists()]
    return f"{name} is skipped: {', '.join(absent)} not found in the folder of --data." if absent else None


def open_subject(name: str, data: Path, *, calibration: int, test: int | None = None, seed: int = 0) -> Subject:
    """A network with at most so many of its images, each class in proportion.

    Args:
        name: of the network.
        data: the folder of networks and images.
        calibration: at most so many images to calibrate on.
        test: at most so many to test on; all if None.
        seed: of the choice of calibration images.
    """
    path, seen, unseen = sources(name, data)
    model = lowbit.load(path)
    if name in PREPARED:
        prepared = PREPARED[name]
        model = dataclasses.replace(model, preprocessing=prepared.preprocessing)
        # A table's classes have a picture or none: choosing each class in proportion would always leave out the same.
        images = open_prepared(Path(seen), prepared, labels=not seen.endswith(".csv"))
        tests = open_prepared(Path(unseen), prepared)
        chosen = tests if test is None else tests.subset(test)
        return Subject(name, path, model, images.subset(calibration, seed=seed), chosen)
    if model.preprocessing is None:
        model = with_preprocessing(model, ImageWords(mean="imagenet", std="imagenet"))
    images = lowbit.open_images(seen, model.preprocessing, limit=calibration, seed=seed)
    return Subject(name, path, model, images, lowbit.open_images(unseen, model.preprocessing, limit=test))


def replies(content: bytes, subject: Subject, images: Images) -> np.ndarray:
    """What a file answers, [images, values]; it is run on as many images at a time as the float model takes."""
    (answer,) = float_answers(content, subject.model, images).values()
    return np.asarray(answer).reshape(len(answer), -1)


def open_prepared(path: Path, prepared: Prepared, *, labels: bool = True) -> Images:
    """The images of a folder or a table, prepared as the network wants them."""
    source = from_list(path) if path.suffix == ".csv" else from_folder(path)
    read = reader(prepared.preprocessing, bgr=prepared.bgr)
    source = dataclasses.replace(source, read=read, labels=source.labels if labels else None)
    return Images(source, prepared.preprocessing)


def reader(preprocessing: Preprocessing, *, bgr: bool) -> Callable[[Path, int], np.ndarray]:
    """What reads a file as uint8 [height, width, channels], scaled bicubically; lowbit itself scales bilinearly."""
    size = preprocessing.width, preprocessing.height

    @lru_cache(PIXELS_KEPT)
    def read(place: Path, channels: int) -> np.ndarray:
        image = Image.fromarray(decode_file(place, channels))
        pixels = np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BICUBIC))
        return np.ascontiguousarray(pixels[..., ::-1]) if bgr else pixels

    return read

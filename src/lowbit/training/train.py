"""Train the study's MobileNetV2 on a folder of class folders, and write it as ONNX with its metrics and its curve.

Same data, seed, machine and versions give the same weights; another processor rounds differently.
"""

import dataclasses
import json
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import lowbit
from lowbit.errors import DataError
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from lowbit.progress import SILENT, Progress
from lowbit.staging import staged_folder
from lowbit.training.curve import Epoch, draw_curve
from lowbit.training.export import to_onnx
from lowbit.training.fit import Fitted, Score, fit, score
from lowbit.training.mobilenet import MobileNetV2, freeze, parameter_count
from lowbit.training.pixels import PixelSet, read_pixels, shared_images
from lowbit.training.recipes import IMAGENET, TrainingRecipe
from lowbit.training.weights import fetch_imagenet, load_weights, read_state


@dataclass(frozen=True)
class TrainingData:
    """The images of a training run.

    Args:
        source: a folder of class folders, or "builtin:train".
        test: images to score once, after training has ended and the weights are chosen.
        size: side of the images in pixels.
        limit: maximum number of training images.
    """

    source: Path | str
    test: Path | str | None = None
    size: int = 128
    limit: int | None = None


@dataclass(frozen=True)
class Trained:
    """The three files that a run wrote, and what they say."""

    model: Path
    metrics: Path
    curve: Path
    parameters: int
    history: tuple[Epoch, ...]
    best_epoch: int
    validation: Score
    test: Score | None


def train(
    data: TrainingData,
    recipe: TrainingRecipe,
    *,
    output: Path | str,
    seed: int = 0,
    command: str = "",
    progress: Progress = SILENT,
) -> Trained:
    """Train MobileNetV2 and write `output` (ONNX), `<name>.metrics.json` and `<name>.curve.png` beside it.

    Args:
        data: what to train and test on.
        recipe: `FINE_TUNING` or `FROM_SCRATCH`, or a variant of these.
        output: the ONNX file to write; all three files appear together, or none.
        seed: fixes the split, the initial weights, the order and the augmentation.
        command: recorded in the metrics.
        progress: told loss, accuracy and time left after every epoch.

    Raises:
        DataError: images or weights that cannot be read, or that do not suit training.
        ModelError: weights of another network, or training that diverged.
        OutputError: the output cannot be written.
    """
    if recipe.epochs < 1 or data.size < 32:
        raise DataError(
            f"epochs must be at least 1 and the image size at least 32, not {recipe.epochs} and {data.size}."
        )
    output = Path(output)
    images, unseen = _read(data, progress)
    _check_output(output)
    torch.manual_seed(seed)
    model, frozen = _untrained(len(images.class_names), recipe, progress)
    fitted = fit(model, images, recipe, frozen, seed=seed, progress=progress)
    scored = None if unseen is None else score(model, unseen)
    choices = dataclasses.asdict(recipe)
    weights = choices.pop("weights")
    metrics = {
        "command": command,
        **_images(data, images, unseen),
        "recipe": choices,
        "seed": seed,
        "weights": weights,
        **_outcome(model, fitted, scored),
    }
    preprocessing = Preprocessing(height=data.size, width=data.size, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    # Scores are in the metrics; the model file says only where it comes from.
    serialized = to_onnx(
        model, preprocessing=preprocessing, class_names=images.class_names,
        metadata={"lowbit.training": json.dumps({"command": command, "data_sha256": images.sha256, "seed": seed})},
    )  # fmt: skip
    name = output.name.removesuffix(".onnx")
    curve = draw_curve(fitted.history, best=fitted.best_epoch, title=f"{name} on {images.name}")
    files = (output, output.parent / f"{name}.metrics.json", output.parent / f"{name}.curve.png")
    trained = Trained(*files, parameter_count(model), fitted.history, fitted.best_epoch, fitted.validation, scored)
    with staged_folder(output.parent) as stage:
        (stage / output.name).write_bytes(serialized)
        (stage / trained.metrics.name).write_text(json.dumps(metrics, indent=1) + "\n")
        (stage / trained.curve.name).write_bytes(curve)
    return trained


def _read(data: TrainingData, progress: Progress) -> tuple[PixelSet, PixelSet | None]:
    """The training images, and the test images if there are any."""
    images = read_pixels(data.source, size=data.size, limit=data.limit, progress=progress)
    if data.test is None:
        return images, None
    unseen = read_pixels(data.test, size=data.size, classes=images.class_names, progress=progress)
    if shared := shared_images(images, unseen):
        raise DataError(
            f"{shared} of the test images are training images too.",
            where=str(data.test),
            remedy="Give other images to test on.",
        )
    return images, unseen


def _untrained(classes: int, recipe: TrainingRecipe, progress: Progress) -> tuple[MobileNetV2, tuple[str, ...]]:
    """The network with its first weights, and the names of its frozen layers."""
    model = MobileNetV2(classes)
    if recipe.weights is not None:
        path = fetch_imagenet(progress=progress) if recipe.weights == IMAGENET else Path(recipe.weights)
        load_weights(model, read_state(path), source=str(path))
    return model, () if recipe.trained_layers is None else freeze(model, trained_layers=recipe.trained_layers)


def _images(data: TrainingData, images: PixelSet, unseen: PixelSet | None) -> dict[str, object]:
    """The part of the metrics that names the images."""
    return {
        "data": {
            "source": str(data.source),
            "images": len(images),
            "classes": images.class_names,
            "sha256": images.sha256,
        },
        "test_data": None if unseen is None else {"source": str(data.test), "sha256": unseen.sha256},
    }


def _outcome(model: MobileNetV2, fitted: Fitted, scored: Score | None) -> dict[str, object]:
    """The part of the metrics that training decides."""
    return {
        "parameters": parameter_count(model),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "best_epoch": fitted.best_epoch,
        "validation": dataclasses.asdict(fitted.validation),
        "test": None if scored is None else dataclasses.asdict(scored),
        "seconds": round(fitted.seconds, 1),
        "versions": {"lowbit": lowbit.__version__, "torch": torch.__version__, "numpy": np.__version__,
                     "python": platform.python_version()},
        "threads": torch.get_num_threads(),
        "epochs": [dataclasses.asdict(epoch) for epoch in fitted.history],
    }  # fmt: skip


def _check_output(output: Path) -> None:
    """Refuse an output that cannot be written now, not after the training."""
    if output.suffix != ".onnx":
        raise DataError("the output must be an .onnx file.", where=str(output), remedy="Give a name like model.onnx.")
    with staged_folder(output.parent):
        pass

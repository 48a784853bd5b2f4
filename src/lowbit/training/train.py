"""Train the study's MobileNetV2 on a folder of class folders, and write it as ONNX with its metrics and its curve.

Two recipes, in plain sight below. `FINE_TUNING` is the study's: ImageNet weights, all but the top ten layers frozen (a
layer is a convolution, a batch norm or an activation, as in Keras where the study was made; the new classifier is
trained as well), frozen batch norms in inference mode, Adam at 5e-5, early stopping on a validation split of the
training images. `FROM_SCRATCH` needs no weights: everything is trained, with AdamW under a one-cycle rate (Smith and
Topin, "Super-Convergence", 2018).

Same data, seed, machine and versions give the same weights; another processor rounds differently.
"""

import ctypes
import dataclasses
import json
import math
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, interpolate

import lowbit
from lowbit.errors import DataError, ModelError
from lowbit.files import staged_folder
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from lowbit.progress import SILENT, Progress
from lowbit.training.augmentation import STRONG, STUDY, Augmentation, augment
from lowbit.training.curve import Epoch, draw_curve
from lowbit.training.export import to_onnx
from lowbit.training.mobilenet import MobileNetV2, freeze, frozen_inference, parameter_count
from lowbit.training.pixels import PixelSet, read_pixels, shared_images, stratified_split
from lowbit.training.weights import fetch_imagenet, load_weights, read_state

IMAGENET = "imagenet"
EVALUATION_BATCH = 128


@dataclass(frozen=True)
class TrainingRecipe:
    """Every choice of a training run.

    Args:
        epochs: passes over the training images, at most.
        learning_rate: constant, or the peak of the cycle.
        one_cycle: rise to the peak over the first quarter and fall to nothing, instead of a constant rate.
        weight_decay: AdamW's; 0 makes it plain Adam.
        trained_layers: so many last layers and the classifier; None trains everything.
        augmentation: how training images are varied.
        label_smoothing: share of the target given to all classes alike.
        patience: stop after so many epochs without a better validation loss; None never stops early.
        validation_share: of each class, put aside for validation.
        varied_validation: validate on one augmented copy of each image, always the same, beside the image itself: film
            frames that resemble each other across the split would otherwise make every epoch look perfect.
        batch_size: images in a step.
        growing: (share of all steps, share of the side) pairs: train at that part of the image size until that part of
            the run. Early epochs learn shapes as well from small images, at a fraction of the time.
        ramp: augmentation grows from nothing to full over this share of the run, so that learning can begin.
    """

    epochs: int
    learning_rate: float
    one_cycle: bool
    weight_decay: float
    trained_layers: int | None
    augmentation: Augmentation
    label_smoothing: float
    patience: int | None
    validation_share: float = 0.1
    varied_validation: bool = False
    batch_size: int = 64
    growing: tuple[tuple[float, float], ...] = ()
    ramp: float = 0.0


FINE_TUNING = TrainingRecipe(
    epochs=30, learning_rate=5e-5, one_cycle=False, weight_decay=0.0, trained_layers=10, augmentation=STUDY,
    label_smoothing=0.0, patience=5,
)  # fmt: skip
FROM_SCRATCH = TrainingRecipe(
    epochs=30, learning_rate=1.5e-3, one_cycle=True, weight_decay=0.02, trained_layers=None, augmentation=STRONG,
    label_smoothing=0.05, patience=None, varied_validation=True, batch_size=32, growing=((0.5, 0.5), (0.8, 0.75)),
    ramp=0.3,
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """Accuracy from 0 to 1 and mean cross-entropy in nats over `images` images."""

    images: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class Trained:
    """What a run left behind: the three files, and what they say."""

    model: Path
    metrics: Path
    curve: Path
    parameters: int
    history: tuple[Epoch, ...]
    best_epoch: int
    validation: Score
    test: Score | None


def train(
    data: Path | str,
    *,
    output: Path | str,
    epochs: int | None = None,
    from_scratch: bool = False,
    weights: Path | str = IMAGENET,
    seed: int = 0,
    size: int = 128,
    test: Path | str | None = None,
    limit: int | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> Trained:
    """Train MobileNetV2 and write `output` (ONNX), `<name>.metrics.json` and `<name>.curve.png` beside it.

    Args:
        data: a folder of class folders, or "builtin:train".
        output: the ONNX file to write; all three files appear together, or none.
        epochs: at most so many passes; the recipe's number by default.
        from_scratch: train everything from random weights instead of fine-tuning.
        weights: "imagenet" (downloaded once and checked) or a state-dict file; not used from scratch.
        seed: fixes the split, the initial weights, the order and the augmentation.
        size: side of the images in pixels.
        test: images to score once, after training has ended and the weights are chosen.
        limit: use so many training images only.
        command: recorded in the metrics.
        progress: told loss, accuracy and time left after every epoch.

    Raises:
        DataError: images or weights that cannot be read, or that do not suit training.
        ModelError: weights of another network, or training that diverged.
        OutputError: the output cannot be written.
    """
    recipe = FROM_SCRATCH if from_scratch else FINE_TUNING
    if epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=epochs)
    if recipe.epochs < 1 or size < 32:
        raise DataError(f"epochs={recipe.epochs} and size={size}: at least 1 and 32.", remedy="Choose larger values.")
    output = Path(output)
    images = read_pixels(data, size=size, limit=limit, progress=progress)
    unseen = None if test is None else read_pixels(test, size=size, classes=images.class_names, progress=progress)
    if unseen is not None and (shared := shared_images(images, unseen)):
        raise DataError(
            f"{shared} of the test images are training images too.", where=str(test), remedy="Give images of their own."
        )
    _check_output(output)
    torch.manual_seed(seed)
    _keep_freed_memory()
    model = MobileNetV2(len(images.class_names))
    frozen: tuple[str, ...] = ()
    if not from_scratch:
        path = fetch_imagenet(progress=progress) if str(weights) == IMAGENET else Path(weights)
        load_weights(model, read_state(path), source=str(path))
    if recipe.trained_layers is not None:
        frozen = freeze(model, trained_layers=recipe.trained_layers)
    started = time.monotonic()
    history, best, validation = _fit(model, images, recipe, frozen, seed=seed, progress=progress)
    seconds = time.monotonic() - started
    scored = None if unseen is None else score(model, unseen)
    metrics = {
        "command": command,
        "data": {"source": str(data), "images": len(images), "classes": images.class_names, "sha256": images.sha256},
        "test_data": None if unseen is None else {"source": str(test), "sha256": unseen.sha256},
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "weights": None if from_scratch else str(weights),
        "parameters": parameter_count(model),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "best_epoch": best,
        "validation": dataclasses.asdict(validation),
        "test": None if scored is None else dataclasses.asdict(scored),
        "seconds": round(seconds, 1),
        "versions": {"lowbit": lowbit.__version__, "torch": torch.__version__, "numpy": np.__version__,
                     "python": platform.python_version()},
        "threads": torch.get_num_threads(),
        "epochs": [dataclasses.asdict(epoch) for epoch in history],
    }  # fmt: skip
    preprocessing = Preprocessing(height=size, width=size, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    # What was tested last is in the metrics; the model file says only where it comes from.
    serialized = to_onnx(
        model, preprocessing=preprocessing, class_names=images.class_names,
        metadata={"lowbit.training": json.dumps({"command": command, "data_sha256": images.sha256, "seed": seed})},
    )  # fmt: skip
    name = output.name.removesuffix(".onnx")
    with staged_folder(output.parent) as stage:
        (stage / output.name).write_bytes(serialized)
        (stage / f"{name}.metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        (stage / f"{name}.curve.png").write_bytes(draw_curve(history, best=best, title=f"{name} on {images.name}"))
    return Trained(
        model=output,
        metrics=output.parent / f"{name}.metrics.json",
        curve=output.parent / f"{name}.curve.png",
        parameters=parameter_count(model),
        history=history,
        best_epoch=best,
        validation=validation,
        test=scored,
    )


def score(model: MobileNetV2, images: PixelSet) -> Score:
    """Accuracy and loss of `model` in inference mode and float32."""
    batches = (
        (_to_unit(images.images[start : start + EVALUATION_BATCH]), images.labels[start : start + EVALUATION_BATCH])
        for start in range(0, len(images), EVALUATION_BATCH)
    )
    return _score(model, ((pixels, torch.from_numpy(labels)) for pixels, labels in batches))


def _keep_freed_memory() -> None:
    """Ask glibc to hold on to what a step frees: giving it back and faulting it in again costs 40 % of the time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((-1, 2**31 - 1), (-3, 2**30), (-2, 2**26)):  # trim threshold, mmap threshold, top pad
            mallopt(option, value)


def _fit(
    model: MobileNetV2,
    images: PixelSet,
    recipe: TrainingRecipe,
    frozen: tuple[str, ...],
    *,
    seed: int,
    progress: Progress,
) -> tuple[tuple[Epoch, ...], int, Score]:
    """Train in place and leave the best weights in `model`: the history, the best epoch, its validation score."""
    training, validation = stratified_split(images.labels, share=recipe.validation_share, seed=seed)
    model.to(memory_format=torch.channels_last)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Scales, shifts and biases are not pulled to zero.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    steps = -(-len(training) // recipe.batch_size)
    total = steps * recipe.epochs
    schedule = (
        torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=total + 1, pct_start=0.25)
        if recipe.one_cycle
        else None
    )
    generator = torch.Generator().manual_seed(seed)
    held_out = _validation_batches(images, validation, recipe, seed)
    labels = torch.from_numpy(images.labels)
    history: list[Epoch] = []
    best, best_score = 0, Score(0, 0.0, math.inf)
    best_state: dict[str, torch.Tensor] = {}
    ticks = iter(progress.track(range(total), "training", total=total))
    started = time.monotonic()
    for epoch in range(1, recipe.epochs + 1):
        epoch_started = time.monotonic()
        frozen_inference(model, frozen)
        done = (epoch - 1) / recipe.epochs
        augmentation = recipe.augmentation.scaled(min(1.0, done / recipe.ramp) if recipe.ramp else 1.0)
        order = training[torch.randperm(len(training), generator=generator).numpy()]
        loss_sum, hits, rate = 0.0, 0, optimizer.param_groups[0]["lr"]
        for chosen in np.array_split(order, steps):
            next(ticks)
            x = augment(_shrunk(_to_unit(images.images[chosen]), recipe, done), augmentation, generator=generator)
            target = labels[chosen]
            logits = model(_normalized(x))
            loss = cross_entropy(logits, target, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            with torch.no_grad():
                loss_sum += float(cross_entropy(logits, target)) * len(chosen)
                hits += int((logits.argmax(1) == target).sum())
        validated = _score(model, iter(held_out))
        row = Epoch(epoch, rate, loss_sum / len(order), hits / len(order), validated.loss, validated.accuracy,
                    round(time.monotonic() - epoch_started, 2))  # fmt: skip
        history.append(row)
        if not math.isfinite(row.training_loss):
            raise ModelError(f"training diverged in epoch {epoch}.", remedy="Check the images and the labels.")
        if validated.loss < best_score.loss:
            best, best_score = epoch, validated
            best_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        left = (time.monotonic() - started) / epoch * (recipe.epochs - epoch)
        progress.note(
            f"epoch {epoch}/{recipe.epochs}: loss {row.training_loss:.3f}, "
            f"accuracy {100 * row.training_accuracy:.1f} %, validation loss {row.validation_loss:.3f}, "
            f"accuracy {100 * row.validation_accuracy:.1f} %, about {left / 60:.0f} min left"
        )
        if recipe.patience is not None and epoch - best >= recipe.patience:
            progress.note(f"stopped: no better validation loss for {recipe.patience} epochs, epoch {best} is kept")
            break
    for _ in ticks:  # a run that stopped early is done all the same
        pass
    if not best_state:
        raise ModelError("the validation loss never was a number.", remedy="Check the images and the labels.")
    model.load_state_dict(best_state)
    model.eval()
    return tuple(history), best, best_score


def _validation_batches(
    images: PixelSet, validation: np.ndarray, recipe: TrainingRecipe, seed: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The images put aside, float32 0 to 1, the same in every epoch."""
    generator = torch.Generator().manual_seed(seed + 1)
    batches = []
    for start in range(0, len(validation), EVALUATION_BATCH):
        chosen = validation[start : start + EVALUATION_BATCH]
        x, target = _to_unit(images.images[chosen]), torch.from_numpy(images.labels[chosen])
        batches.append((x, target))
        if recipe.varied_validation:
            batches.append((augment(x, recipe.augmentation, generator=generator), target))
    return batches


def _score(model: MobileNetV2, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> Score:
    model.eval()
    loss, hits, count = 0.0, 0, 0
    with torch.inference_mode():
        for x, target in batches:
            logits = model(_normalized(x))
            loss += float(cross_entropy(logits, target, reduction="sum"))
            hits += int((logits.argmax(1) == target).sum())
            count += len(target)
    return Score(count, hits / count, loss / count)


def _to_unit(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w], 0 to 1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def _shrunk(x: torch.Tensor, recipe: TrainingRecipe, done: float) -> torch.Tensor:
    """The batch at the size that `recipe.growing` sets for this part of the run."""
    share = next((part for until, part in recipe.growing if done < until), 1.0)
    side = max(32, round(x.shape[-1] * share))
    return x if side >= x.shape[-1] else interpolate(x, (side, side), mode="bilinear", antialias=True)


def _normalized(x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def _check_output(output: Path) -> None:
    """Refuse an output that cannot be written now, not after the training."""
    if output.suffix != ".onnx":
        raise DataError("the output must be an .onnx file.", where=str(output), remedy="Give a name like model.onnx.")
    with staged_folder(output.parent):
        pass

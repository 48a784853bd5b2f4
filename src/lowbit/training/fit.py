"""The training loop: one pass over the training images after another, and the weights of the best epoch are kept."""

import ctypes
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, interpolate

from lowbit.errors import ModelError
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from lowbit.progress import Progress
from lowbit.training.augmentation import augment
from lowbit.training.curve import Epoch
from lowbit.training.mobilenet import MobileNetV2, frozen_inference
from lowbit.training.pixels import PixelSet, stratified_split
from lowbit.training.recipes import TrainingRecipe

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Score:
    """Accuracy from 0 to 1 and mean cross-entropy in nats over `images` images."""

    images: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class Fitted:
    """How training went: every epoch, the one whose weights were kept, its validation score, and how long it took."""

    history: tuple[Epoch, ...]
    best_epoch: int
    validation: Score
    seconds: float


def fit(
    model: MobileNetV2,
    images: PixelSet,
    recipe: TrainingRecipe,
    frozen: tuple[str, ...],
    *,
    seed: int,
    progress: Progress,
) -> Fitted:
    """Train in place and leave the weights of the best epoch in `model`.

    Args:
        model: with its first weights.
        images: training and validation images together.
        frozen: names of the layers that are not trained.

    Raises:
        ModelError: the loss is not a number.
    """
    keep_freed_memory()
    training, validation = stratified_split(images.labels, share=recipe.validation_share, seed=seed)
    model.to(memory_format=torch.channels_last)
    steps = -(-len(training) // recipe.batch_size)
    total = steps * recipe.epochs
    generator = torch.Generator().manual_seed(seed)
    held_out = _validation_batches(images, validation, recipe, seed)
    trainer = _Trainer(model, images, recipe, generator, *_optimizer(model, recipe, total))
    history: list[Epoch] = []
    best, best_score = 0, Score(0, 0.0, math.inf)
    best_state: dict[str, torch.Tensor] = {}
    ticks = iter(progress.track(range(total), "training", total=total))
    started = time.monotonic()
    for epoch in range(1, recipe.epochs + 1):
        epoch_started = time.monotonic()
        frozen_inference(model, frozen)
        rate = trainer.optimizer.param_groups[0]["lr"]
        order = training[torch.randperm(len(training), generator=generator).numpy()]
        trained = trainer.train(np.array_split(order, steps), (epoch - 1) / recipe.epochs, ticks)
        if not math.isfinite(trained.loss):
            raise ModelError(f"training diverged in epoch {epoch}.", remedy="Check the images and the labels.")
        validated = _score(model, iter(held_out))
        seconds = round(time.monotonic() - epoch_started, 2)
        history.append(Epoch(epoch, rate, trained.loss, trained.accuracy, validated.loss, validated.accuracy, seconds))
        if validated.loss < best_score.loss:
            best, best_score = epoch, validated
            best_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        left = (time.monotonic() - started) / epoch * (recipe.epochs - epoch)
        progress.note(f"epoch {epoch}/{recipe.epochs}: {_told(history[-1])}, about {left / 60:.0f} min left")
        if recipe.patience is not None and epoch - best >= recipe.patience:
            progress.note(
                f"stopped: validation loss has not improved for {recipe.patience} epochs; keeping epoch {best}"
            )
            break
    list(ticks)  # A run that stopped early is complete all the same.
    if not best_state:
        raise ModelError("the validation loss was never a number.", remedy="Check the images and the labels.")
    model.load_state_dict(best_state)
    model.eval()
    return Fitted(tuple(history), best, best_score, time.monotonic() - started)


def _told(epoch: Epoch) -> str:
    return (
        f"loss {epoch.training_loss:.3f}, accuracy {100 * epoch.training_accuracy:.1f} %, "
        f"validation loss {epoch.validation_loss:.3f}, accuracy {100 * epoch.validation_accuracy:.1f} %"
    )


@dataclass(frozen=True)
class _Trainer:
    """What every pass over the training images uses."""

    model: MobileNetV2
    images: PixelSet
    recipe: TrainingRecipe
    generator: torch.Generator
    optimizer: torch.optim.Optimizer
    schedule: Any

    def train(self, batches: Sequence[np.ndarray], done: float, ticks: Iterator[int]) -> Score:
        """One step per batch of image indices; `done` is the share of the run that lies behind."""
        recipe, labels = self.recipe, torch.from_numpy(self.images.labels)
        augmentation = recipe.augmentation.scaled(min(1.0, done / recipe.ramp) if recipe.ramp else 1.0)
        count = sum(len(chosen) for chosen in batches)
        loss_sum, hits = 0.0, 0
        for chosen in batches:
            next(ticks)
            x = _shrunk(_to_unit(self.images.images[chosen]), recipe, done)
            x = augment(x, augmentation, generator=self.generator)
            target = labels[chosen]
            logits = self.model(_normalized(x))
            loss = cross_entropy(logits, target, label_smoothing=recipe.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()
            with torch.no_grad():
                loss_sum += float(cross_entropy(logits, target)) * len(chosen)
                hits += int((logits.argmax(1) == target).sum())
        return Score(count, hits / count, loss_sum / count)


def _optimizer(model: MobileNetV2, recipe: TrainingRecipe, total: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW, and the one-cycle schedule over `total` steps if the recipe has one."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Scales, shifts and biases are not pulled to zero.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    if not recipe.one_cycle:
        return optimizer, None
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=total + 1, pct_start=0.25
    )


def score(model: MobileNetV2, images: PixelSet) -> Score:
    """Accuracy and loss of `model` in inference mode and float32."""
    batches = (
        (_to_unit(images.images[start : start + EVALUATION_BATCH]), images.labels[start : start + EVALUATION_BATCH])
        for start in range(0, len(images), EVALUATION_BATCH)
    )
    return _score(model, ((pixels, torch.from_numpy(labels)) for pixels, labels in batches))


def keep_freed_memory() -> None:
    """Ask glibc to keep what a step frees: returning it and faulting it in again costs 40 % of the time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((-1, 2**31 - 1), (-3, 2**30), (-2, 2**26)):  # trim threshold, mmap threshold, top pad
            mallopt(option, value)


def _validation_batches(
    images: PixelSet, validation: np.ndarray, recipe: TrainingRecipe, seed: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The images held out, float32 0 to 1, the same in every epoch."""
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

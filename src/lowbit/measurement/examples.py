"""Images that float and a quantized file classify differently, small enough to show on a page."""

import base64
import io
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lowbit.data.dataset import Dataset
from lowbit.graph.preprocessing import RGB, Preprocessing
from lowbit.measurement.accuracy import predicted_classes
from lowbit.measurement.details import Example
from lowbit.measurement.prediction import Prediction

THUMBNAIL_PIXELS = 72


def changed_images(reference: Prediction, prediction: Prediction, *, limit: int = 12) -> tuple[int, ...]:
    """Indices of up to `limit` images whose class changed: first those that only float gets right, then the others."""
    before, after = predicted_classes(reference.logits), predicted_classes(prediction.logits)
    changed = np.flatnonzero(before != after)
    if reference.labels is not None:
        labels = reference.labels[changed]
        # 0: float alone is right; 1: both are wrong; 2: this file alone is right. Stable, so images stay in order.
        kind = np.where(before[changed] == labels, 0, np.where(after[changed] == labels, 2, 1))
        changed = changed[np.argsort(kind, kind="stable")]
    return tuple(int(i) for i in changed[:limit])


def examples(
    reference: Prediction,
    predictions: Sequence[Prediction],
    images: Dataset,
    preprocessing: Preprocessing,
    *,
    class_names: Sequence[str] = (),
    limit: int = 12,
) -> tuple[tuple[Example, ...], ...]:
    """For each file the examples to show; one pass over the images, one thumbnail per image.

    Args:
        reference: the float model's outputs.
        predictions: outputs of the other files, in their order.
        images: the evaluation images, as the model saw them.
        preprocessing: how they were normalized, which is undone before drawing.
        class_names: names of the outputs; their numbers where there are none.
        limit: maximum number of examples per file.
    """
    wanted = [changed_images(reference, prediction, limit=limit) for prediction in predictions]
    needed = {index for indices in wanted for index in indices}
    pictures = _thumbnails(images, needed, preprocessing)
    before = predicted_classes(reference.logits)
    labels = reference.labels

    def name(index: int) -> str:
        if index < 0:
            return "not a number"
        return class_names[index] if index < len(class_names) else str(index)

    return tuple(
        tuple(
            Example(
                i, None if labels is None else name(int(labels[i])), name(int(before[i])), name(int(c)), pictures[i]
            )
            for i, c in zip(indices, predicted_classes(prediction.logits)[list(indices)], strict=True)
        )
        for indices, prediction in zip(wanted, predictions, strict=True)
    )


def _thumbnails(images: Dataset, needed: Collection[int], preprocessing: Preprocessing) -> dict[int, str]:
    """By index, the thumbnails of some images."""
    pictures: dict[int, str] = {}
    start = 0
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    for batch in images.batches(32, limit=max(needed) + 1) if needed else ():
        for offset, picture in enumerate(next(iter(batch.inputs.values()))):  # images come before what is fed beside
            if start + offset in needed:
                x = picture if preprocessing.layout == "NHWC" else np.moveaxis(picture, 0, -1)
                pixels = np.rint((x * std + mean) / preprocessing.scale)
                pictures[start + offset] = thumbnail(pixels if preprocessing.colors == RGB else pixels[..., ::-1])
        start += len(batch)
    return pictures


def thumbnail(image: NDArray[np.number], *, pixels: int = THUMBNAIL_PIXELS) -> str:
    """PNG in base64 of an image [H, W, C] with values 0..255, at most `pixels` on its longer side."""
    array = np.clip(image, 0, 255).astype(np.uint8)
    picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array[..., :3])
    picture.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    # A palette of 64 colors is a third of the bytes, and at this size looks the same.
    file = io.BytesIO()
    picture.convert("RGB").quantize(64).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")

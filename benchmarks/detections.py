"""What a detector finds, and how many of the float file's findings another file shares."""

import numpy as np

CLASSES_FROM = 5  # objectness and four numbers of the box come first
THRESHOLD = 0.65


def found(outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which cells hold an object, bool [images, cells], and of which class.

    Args:
        outputs: [images, channels * cells] with FastestDet's 85 channels: objectness, box, scores of 80 classes.
    """
    channels = outputs.reshape(len(outputs), CLASSES_FROM + 80, -1)
    objectness, scores = np.maximum(channels[:, 0], 0), channels[:, CLASSES_FROM:]
    return objectness**0.6 * np.maximum(scores.max(axis=1), 0) ** 0.4 > THRESHOLD, scores.argmax(axis=1)


def f1(reference: np.ndarray, outputs: np.ndarray) -> float:
    """F1 of the cells found, against those of `reference` with the same class; 1 if both find nothing."""
    (expected, classes), (given, given_classes) = found(reference), found(outputs)
    total = expected.sum() + given.sum()
    shared = (expected & given & (classes == given_classes)).sum()
    return float(2 * shared / total) if total else 1.0

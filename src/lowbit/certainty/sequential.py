"""A test that may be looked at after every image and stopped at any of them, so that clear cases end early.

Somebody who does not believe in a drop below the limit would lose money on it: a gambler stakes a share s of what he
has on every image, s (limit - d), where d is 1 if the image was lost, -1 if it was gained and 0 otherwise. If the true
drop is at least the limit, what he owns is expected never to grow, and by Ville's inequality it reaches 1 / alpha at
any time with probability at most alpha. So when it does, the drop is below the limit. Several gamblers with different
stakes share the money at the beginning; half of it is with the boldest, who wins soonest where nothing changes.

Source: Waudby-Smith and Ramdas 2024, Estimating means of bounded random variables by betting, JRSS B 86 (the stakes
here are a mixture of constant ones, so that for counts the order of images does not matter).
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from lowbit.certainty.certificate import HOLDS, Certificate, certificate
from lowbit.certainty.paired import Paired, allowed_error, drop_bounds
from lowbit.errors import DataError

Array = np.ndarray[Any, np.dtype[np.float64]]

STAKES = 0.95 * 2.0 ** -np.arange(8)  # shares of the most that cannot lose everything
MONEY = np.log(np.array([0.5, *[0.5 / 7] * 7]))
EARLY = 0.5  # share of the error that is allowed for stopping early; the rest is for the last look, at all images
STEPS = 40

GO_ON, FAILS = "go on", "fails"


class SequentialTest:
    """Whether a mean drop is at most a limit, asked as often as one likes.

    Args:
        limit: of the mean drop, a share of 1.
        confidence: that an answer is right, whenever the test is stopped.
        looks: number of candidates that are tested on these images.

    Attributes:
        images: seen so far.
        drop: of them, in the mean.
        answer: `holds`, `fails` or `go on`.
    """

    def __init__(self, limit: float, *, confidence: float = 0.95, looks: int = 1) -> None:
        self.limit, self.threshold = limit, -math.log(allowed_error(confidence, looks))
        self.images, self.answer, self._sum = 0, GO_ON, 0.0
        self._holding, self._failing = MONEY.copy(), MONEY.copy()

    @property
    def drop(self) -> float:
        """The mean drop so far."""
        return self._sum / max(1, self.images)

    def feed(self, differences: Any) -> str:  # noqa: ANN401 - anything that numpy makes an array of
        """Take the next images in; an answer once given stays.

        Args:
            differences: [images] what each image lost, -1..1: 1 where only the float model is right, or float's score
                minus the file's.

        Raises:
            DataError: a difference outside -1..1.
        """
        values, counts = np.unique(np.asarray(differences, np.float64), return_counts=True)
        if values.size and not (values[0] >= -1 and values[-1] <= 1):
            raise DataError(
                f"differences reach from {values[0]:g} to {values[-1]:g}, outside -1..1.",
                remedy="Give differences of scores between 0 and 1.",
            )
        self.images += int(counts.sum())
        self._sum += float(values @ counts)
        if self.answer == GO_ON:
            self._holding += _gains(values, counts, self.limit)
            self._failing += _gains(-values, counts, -self.limit)
            if _total(self._holding) >= self.threshold:
                self.answer = HOLDS
            elif _total(self._failing) >= self.threshold:
                self.answer = FAILS
        return self.answer


def sequential_bounds(paired: Paired, *, confidence: float = 0.95, looks: int = 1) -> tuple[float, float]:
    """Bounds of the drop, each of which holds with the confidence at all times at once, so also when one stops."""
    threshold = -math.log(allowed_error(confidence, looks))
    values = np.array([-1.0, 0.0, 1.0])
    counts = np.array([paired.gained, paired.images - paired.changed, paired.lost])
    return -_bound(-values, counts, threshold), _bound(values, counts, threshold)


def certify_early(chunks: Iterable[Paired], limit: float, *, confidence: float = 0.95, looks: int = 1) -> Certificate:
    """Certify a file on images that arrive in chunks, of which no more are asked for than clear cases need.

    Half of the error allowed is for stopping early. If the images end undecided, the rest is for the sharper bounds of
    all of them.

    Args:
        chunks: counts of one chunk of images after another, read one at a time.
        limit: of the drop, a share of 1.
        confidence: that the certificate is right.
        looks: number of candidates that are tested on these images.

    Raises:
        DataError: no chunks.
    """
    alpha = allowed_error(confidence, looks)
    test, seen = SequentialTest(limit, confidence=1 - alpha * EARLY), None
    for chunk in chunks:
        seen = chunk if seen is None else joined(seen, chunk)
        if test.feed(chunk.differences) != GO_ON:
            break
    if seen is None:
        raise DataError("there are no images to certify on.", remedy="Give at least one chunk of images.")
    if test.answer == GO_ON:
        bounds = drop_bounds(seen, confidence=1 - alpha * (1 - EARLY))
    else:
        bounds = sequential_bounds(seen, confidence=1 - alpha * EARLY)
    return certificate(seen, limit, bounds, confidence=confidence, looks=looks)


def joined(one: Paired, other: Paired) -> Paired:
    """The counts of two sets of images together."""
    return Paired(
        one.images + other.images, one.lost + other.lost, one.gained + other.gained, one.labeled and other.labeled
    )


def _gains(values: Array, counts: Any, limit: float) -> Array:  # noqa: ANN401 - an integer array
    """Logarithm of what each gambler's money is multiplied with if he bets that values are below a limit."""
    most = 1 / (1 - limit)  # what a value of 1 would take everything from
    return np.asarray((counts * np.log1p(most * STAKES[:, None] * (limit - values))).sum(axis=1))


def _total(logs: Array) -> float:
    return float(np.logaddexp.reduce(logs))


def _bound(values: Array, counts: Any, threshold: float) -> float:  # noqa: ANN401 - an integer array
    """The least drop that all larger ones are rejected from."""
    low, high = float(values @ counts / counts.sum()), 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _total(MONEY + _gains(values, counts, middle)) < threshold:
            low = middle
        else:
            high = middle
    return high

"""What an archive is to meet: one goal, the data that a drop is measured on, and what its file computes in."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowbit.data.dataset import Dataset
from lowbit.errors import DataError, SchemeError, did_you_mean
from lowbit.formats.devices import DEVICES
from lowbit.quantization.planning.target import NATIVE, TARGETS, resolved

ACTIVATIONS = ("float", "int8")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Goal:
    """One of three goals.

    Attributes:
        size: maximum bytes of the archive.
        bits_per_weight: maximum bits of the archive, all of it counted, per weight of the model's layers.
        max_drop: maximum points of accuracy lost on `data`; percent of changed predictions if it has no labels.
        data: evaluation images, none of them among the calibration images; needed for `max_drop`.
        activations: `float`, or `int8`: the file computes in integers, uint8 activations and int8 weights.
        target: processor that a file in integers is made for, a row of `TARGETS` that is no device, or `native`.
        confidence: that `max_drop` holds on other images like those of `data`, by statistics alone.

    Raises:
        SchemeError: none of the three, more than one, or a number that is not positive; no such activations or target;
            a drop of all accuracy, or a confidence outside 0..1.
        DataError: `max_drop` without data.

    >>> packed = lowbit.pack("model.onnx", lowbit.Goal(size=5000), calibration="photos", effort="fast")
    >>> len(packed.archive) <= 5000
    True
    """

    size: int | None = None
    bits_per_weight: float | None = None
    max_drop: float | None = None
    data: Dataset | str | Path | Iterable[Any] | None = None
    activations: str = "float"
    target: str = NATIVE
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        goals = {"size": self.size, "bits_per_weight": self.bits_per_weight, "max_drop": self.max_drop}
        given = {name: value for name, value in goals.items() if value is not None}
        if len(given) != 1:
            raise SchemeError(
                f"{' and '.join(given)} are {len(given)} goals at once." if given else "no goal was given.",
                remedy="Give one of size, bits_per_weight and max_drop.",
            )
        ((name, value),) = given.items()
        if not (math.isfinite(value) and value > 0):
            raise SchemeError(f"{name} of {value} cannot be reached.", remedy="Give a number above 0.")
        if self.max_drop is not None and self.data is None:
            raise DataError(
                "a drop can only be measured on images that are not used to calibrate.",
                remedy="Give them with --data DIR, or Goal(data=...) in Python; with labels if accuracy is meant.",
            )
        if self.max_drop is not None and self.max_drop >= 100:
            raise SchemeError("max_drop of 100 points leaves nothing.", remedy="Give points of accuracy, such as 0.5.")
        if not 0 < self.confidence < 1:
            raise SchemeError(
                f"confidence of {self.confidence:g} cannot be reached.", remedy="Give a share of 1, such as 0.95."
            )
        self._check_activations()

    @property
    def in_integers(self) -> bool:
        """Whether the file is to compute in integers."""
        return self.activations == "int8"

    def _check_activations(self) -> None:
        if self.activations not in ACTIVATIONS:
            raise SchemeError(
                f"unknown activations '{self.activations}'.",
                remedy=f"{did_you_mean(self.activations, ACTIVATIONS)}Choose one of: {', '.join(ACTIVATIONS)}.",
            )
        if self.target != NATIVE and not self.in_integers:
            raise SchemeError(
                "a file that computes in float is the same for every target.",
                remedy="Omit --target, or ask for --activations int8.",
            )
        if resolved(self.target) in DEVICES:
            processors = [name for name in TARGETS if name not in DEVICES]
            raise SchemeError(
                f"bits are not allocated for target '{self.target}', whose compiler stores codes as it likes.",
                remedy=f"Choose one of: {NATIVE}, {', '.join(processors)}; or an int recipe with --target.",
            )

"""How far a file's outputs are from the float model's, output by output: what can be said of any network.

- Floats by their signal-to-quantization-noise ratio, and by the squared error relative to each channel's variance. An
  offset that all samples share does not flatter the latter, and a channel counts at most as much as one that says
  nothing.
- Integers, such as class numbers, by how many are the same.

One pass over the samples, in float64. An answer of another shape, as selections of boxes have, has no distance and is
counted.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.answers import UNRELATED, Answer, by_channel
from lowbit.measurement.details import OutputRow

LEAST_VARIANCE = 1e-9  # of a channel, relative to the mean: scores beside boxes in pixels have so little

Array = np.ndarray[Any, np.dtype[Any]]
Doubles = NDArray[np.float64]


def output_rows(
    outputs: Mapping[str, Answer], reference: Mapping[str, Answer] | None
) -> tuple[tuple[OutputRow, ...], tuple[str, ...]]:
    """A row for each output, and what readers have to know of them.

    Args:
        outputs: of a file.
        reference: of the float model, by the same names; None for the float model itself.
    """
    rows, notes = [], []
    for name, answer in outputs.items():
        kind, shape = _described(answer)
        wanted = None if reference is None else reference.get(name)
        if reference is not None and (wanted is None or len(wanted) != len(answer)):
            notes.append(f"Output '{name}' is not one of float's, and was not compared.")
            wanted = None
        row = OutputRow(name, kind, shape)
        if wanted is not None:
            row, broken = _compared(row, wanted, answer)
            if row.differing:
                notes.append(
                    f"Output '{name}' has other shapes than float's for {row.differing} of {len(answer)} samples."
                )
            if broken:
                notes.append(f"Output '{name}' is not finite where float's is for {broken} of {len(answer)} samples.")
        rows.append(row)
    missing = [] if reference is None else [name for name in reference if name not in outputs]
    notes += [f"Output '{name}' of the float model is missing." for name in missing]
    return tuple(rows), tuple(notes)


def worst(rows: Sequence[OutputRow]) -> OutputRow | None:
    """The float output that is farthest from float's, relative to how much it varies: SQNR flatters offsets.

    None if there is none, or one could not be compared.
    """
    measured = [row for row in rows if row.type.startswith("float")]
    if not measured or any(row.relative_error is None for row in measured):
        return None
    return max(measured, key=lambda row: row.relative_error or 0.0)


def least_agreement(rows: Sequence[OutputRow]) -> float | None:
    """Of integer outputs, the agreement of the one that agrees least; None without any."""
    return min((row.agreement for row in rows if row.agreement is not None), default=None)


@dataclass
class _Sums:
    """What a pass over the samples adds up, per channel."""

    count: int = 0
    total: Doubles | float = 0.0
    squares: Doubles | float = 0.0
    errors: Doubles | float = 0.0
    broken: int = 0

    def add(self, wanted: Array, given: Array) -> None:
        """One sample or several, [positions, channels]."""
        before, after = wanted.astype(np.float64), given.astype(np.float64)
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            same = (before == after) | (np.isnan(before) & np.isnan(after))
            odd = ~(np.isfinite(before) & np.isfinite(after))
            self.broken += bool((odd & ~same).any())
            before, after = np.where(odd, 0, before), np.where(odd, 0, after)
        self.count += len(before)
        self.total = self.total + before.sum(axis=0)
        self.squares = self.squares + np.square(before).sum(axis=0)
        self.errors = self.errors + np.square(before - after).sum(axis=0)


def _compared(row: OutputRow, wanted: Answer, given: Answer) -> tuple[OutputRow, int]:
    """The row with its figures, and the number of samples that are not finite where float's are."""
    pairs = [(np.asarray(x), np.asarray(y)) for x, y in zip(wanted, given, strict=True) if np.shape(x) == np.shape(y)]
    differing = len(wanted) - len(pairs)
    if row.type.startswith("float"):
        pairs = [(x, y) for x, y in pairs if x.size]
        sums = [_summed(pairs, channels) for channels in _readings([x.shape for x, _ in pairs])]
        broken = max((each.broken for each in sums), default=0)
        figures = [_figures(each) for each in sums] if not broken else []
        sqnr, error = max(figures, key=lambda each: each[1], default=(None, None))
        return dataclasses.replace(row, sqnr_db=sqnr, relative_error=error, differing=differing), broken
    same = sum(int(np.count_nonzero(x == y)) for x, y in pairs)
    numbers = sum(max(np.size(x), np.size(y)) for x, y in zip(wanted, given, strict=True))
    return dataclasses.replace(row, agreement=same / numbers if numbers else 1.0, differing=differing), 0


def _readings(shapes: Sequence[tuple[int, ...]]) -> list[Callable[[Array], Array]]:
    """What channels may be, as functions from a sample to [positions, channels].

    Rows [positions, channels] may as well be [channels, positions], as the heads of detectors are: boxes in pixels
    would hide the scores beside them. Where sizes differ from sample to sample no axis is one of channels.
    """
    readings: list[Callable[[Array], Array]] = [by_channel]
    if shapes and all(len(shape) == 2 for shape in shapes):
        readings.append(lambda x: by_channel(x.T))
    readings = [each for each in readings if len({each(np.empty(shape, bool)).shape[1] for shape in set(shapes)}) == 1]
    if not readings and shapes:
        readings.append(lambda x: x.reshape(-1, 1))
    return readings


def _summed(pairs: Sequence[tuple[Array, Array]], channels: Callable[[Array], Array]) -> _Sums:
    sums = _Sums()
    for before, after in pairs:
        sums.add(channels(before), channels(after))
    return sums


def _figures(sums: _Sums) -> tuple[float | None, float]:
    """SQNR in decibels, None where exact, and the relative error."""
    errors, squares = np.asarray(sums.errors), np.asarray(sums.squares)
    variance = np.maximum(squares / sums.count - np.square(np.asarray(sums.total) / sums.count), 0)
    least = max(LEAST_VARIANCE * float(variance.mean()), float(np.finfo(np.float32).tiny))
    relative = float(np.minimum(errors / sums.count / np.maximum(variance, least), UNRELATED).mean())
    if not errors.any():
        return None, 0.0
    power = float(squares.sum())
    return (10 * math.log10(power / float(errors.sum())) if power else None), relative


def _described(answer: Answer) -> tuple[str, str]:
    """Type and shape for one sample."""
    shapes = {np.shape(sample) for sample in answer} if isinstance(answer, list) else {answer.shape[1:]}
    kind = str(answer[0].dtype if isinstance(answer, list) else answer.dtype)
    if len({len(shape) for shape in shapes}) > 1:
        return kind, "?"
    sizes = [{shape[axis] for shape in shapes} for axis in range(len(next(iter(shapes))))]
    return kind, "×".join(str(next(iter(size))) if len(size) == 1 else "?" for size in sizes) or "1"

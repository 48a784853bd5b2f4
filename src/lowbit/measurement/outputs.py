"""How far a file's outputs are from the float model's, output by output: what can be said of any network.

Floats are compared by their signal-to-quantization-noise ratio and by the squared error relative to each channel's
variance, which an offset that all samples share does not flatter; integers, such as class numbers, by how many are the
same. One pass over the samples, in float64. An answer of another shape, as selections of boxes have, has no distance
and is counted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.answers import Answer, by_channel, floored
from lowbit.measurement.results import OutputRow

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
    pairs = [(before, after) for before, after in zip(wanted, given, strict=True) if before.shape == after.shape]
    differing = len(wanted) - len(pairs)
    numbers = sum(before.size for before, _ in pairs)
    if row.type.startswith("float"):
        one_channel = len({by_channel(before).shape[1] for before, _ in pairs if before.size}) > 1
        sums = _Sums()
        for before, after in pairs:
            if before.size:
                x, y = by_channel(np.asarray(before)), by_channel(np.asarray(after))
                sums.add(*((x.reshape(-1, 1), y.reshape(-1, 1)) if one_channel else (x, y)))
        sqnr, error = (None, None) if sums.broken or not numbers else _figures(sums)
        return OutputRow(row.name, row.type, row.shape, sqnr, error, None, differing), sums.broken
    same = sum(int(np.count_nonzero(before == after)) for before, after in pairs)
    numbers += sum(max(np.size(before), np.size(after)) for before, after in zip(wanted, given, strict=True)
                   if before.shape != after.shape)  # fmt: skip
    return OutputRow(row.name, row.type, row.shape, None, None, same / numbers if numbers else 1.0, differing), 0


def _figures(sums: _Sums) -> tuple[float | None, float]:
    """SQNR in decibels, None where exact, and the relative error."""
    errors, squares = np.asarray(sums.errors), np.asarray(sums.squares)
    variance = np.maximum(squares / sums.count - np.square(np.asarray(sums.total) / sums.count), 0)
    relative = float((errors / sums.count / floored(variance)).mean())
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

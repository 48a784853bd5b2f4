"""How far what calibration showed can be trusted: the ridge of a layer, found by cross-validation.

H and the cross moments come from a few hundred images. The late layers of a network have 12,000 positions for more than
a thousand columns, and a last layer as many as there are images: whatever is fitted to them, re-fitted weights or
rounding errors that cancel, is fitted to their chance as well. A ridge r P on the diagonal of H says how much a change
of a weight costs that the images say nothing of (ridge regression; Hoerl and Kennard 1970):

    tr((W - Q) (H + r P) (W - Q)^T)

P is diagonal: the power with which a column would contribute as much as the mean of them, given its trained weights. So
it hardly asks for the unit of a channel, and a channel that was nearly always zero on the calibration images, and may
not be on others, is not taken for one that may be given any weight. With a ridge relative to each column's own power
EfficientNet-Lite0's late layers (12,250 positions, 1,152 columns), re-fitted, lost up to 70 % of their output's
variance on the images that they were not fitted to; with this one they win 6 %.

The right r differs a thousandfold from the first layers to the last. It is found by fitting every other batch and
judging on the rest, and the other way round.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from lowbit.calibration.moments import Moments
from lowbit.processor import cores, in_order
from lowbit.quantization.solving.gptq import gptq
from lowbit.quantization.solving.grids import UniformGrid
from lowbit.quantization.solving.problem import Floats, Problem, Single, damped, objective

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of the re-fit
ROUNDING_RIDGES = (0.003, 0.03, 0.3, 3.0)
UNJUDGED, ROUNDING_UNJUDGED = 3.0, 0.3  # where there is nothing to judge on
ENOUGH = 0.9  # of what the best ridge wins: of those that win as much the strongest is taken
JUDGED_ROWS, JUDGED_ROUNDED_ROWS = 64, 32  # of each group that is judged by
TYPICAL_BITS = 4  # of codes whose bits are not known beforehand
DAMPING = 1e-2  # of each column's own power while rounding
COVERED = 0.85  # of the weights' range by the grid that rounding is judged on
FEW_ROWS = 4.0  # rows of a group whose sizes count as much as the mean over its columns
MOST = 1e6  # times the mean power, where trained weights are next to nothing

Doubles = npt.NDArray[np.float64]


def typical_power(weights: Floats, second: Single) -> Doubles:
    """P: the power with which each column would contribute the mean of all [groups, columns].

    Args:
        weights: trained [groups, rows, columns].
        second: H [groups, columns, columns].
    """
    power = np.einsum("gkk->gk", second).astype(np.float64)
    rows = weights.shape[1]
    size = np.square(weights).mean(axis=1, dtype=np.float64)
    size = (rows * size + FEW_ROWS * size.mean(axis=1, keepdims=True)) / (rows + FEW_ROWS)
    wanted = (power * size).mean(axis=1, keepdims=True) / np.maximum(size, np.finfo(np.float32).tiny)
    mean = power.mean(axis=1, keepdims=True)
    return np.where(mean > 0, np.minimum(wanted, MOST * mean), 1.0)


def ridged(second: Single, ridge: float, typical: Doubles, *, damping: float = 1e-5, in_place: bool = False) -> Single:
    """H + ridge * diag(P), positive definite; `in_place` may overwrite H."""
    result = damped(second, damping, in_place=in_place)
    np.einsum("gkk->gk", result)[...] += (ridge * typical).astype(np.float32)
    return result


def refit_ridge(weights: Floats, moments: Moments, typical: Doubles) -> float | None:
    """The ridge of the re-fit; None where no re-fit wins anything on the images that it was not fitted to.

    Args:
        weights: trained [groups, rows, columns].
        moments: of the layer.
        typical: P.
    """
    if not moments.halves:
        return UNJUDGED
    rows = slice(None, None, -(-weights.shape[1] // JUDGED_ROWS))
    weights = weights[:, rows]
    missing = [half.cross[:, rows] - weights @ half.second for half in moments.halves]

    def gain(ridge: float, fitted: int) -> float:
        judge = moments.halves[1 - fitted]
        second = ridged(moments.halves[fitted].second, ridge, typical)
        transposed = np.asarray(missing[fitted].transpose(0, 2, 1), np.float32)
        step = np.linalg.solve(second, transposed).transpose(0, 2, 1)
        won = float((step * (2 * missing[1 - fitted] - step @ judge.second)).sum())
        return won if math.isfinite(won) else -math.inf  # of values whose squares are beyond float32

    gains: dict[float, float] = {}
    best = 0.0
    for ridge, won in _sums(gain, RIDGES[::-1]):  # strongest first
        gains[ridge], best = won, max(best, won)
        if best > 0 and won < ENOUGH * best:
            break  # it is too weak, and so are the others
    return max((ridge for ridge, won in gains.items() if won > 0 and won >= ENOUGH * best), default=None)


def _sums(part: Callable[[float, int], float], ridges: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Each ridge with the sum of what `part` says of it for both halves, which threads share."""
    trials = [(ridge, half) for ridge in ridges for half in (0, 1)]
    parts = in_order(lambda trial: part(*trial), trials, threads=cores(), ahead=0)
    for ridge in ridges:
        yield ridge, next(parts) + next(parts)


def rounding_ridge(target: Floats, moments: Moments, typical: Doubles, bits: int) -> float:
    """The ridge with which rounding to this many bits costs least on the images that its errors were not fitted to.

    Args:
        target: what is rounded [groups, rows, columns].
        moments: of the layer.
        typical: P.
        bits: of the codes; what they are chosen from later does not matter here.
    """
    if not moments.halves:
        return ROUNDING_UNJUDGED
    weights = target[:, :: -(-target.shape[1] // JUDGED_ROUNDED_ROWS)]
    top = max(1, 2 ** (bits - 1) - 1)
    scale = np.maximum(COVERED / top * np.abs(weights).max(axis=2, keepdims=True), 1e-30).astype(np.float32)
    grid = UniformGrid(scale, np.zeros_like(scale), np.zeros(weights.shape[2], np.intp), -top, top)

    def loss(ridge: float, half: int) -> float:
        fitted, judge = moments.halves[half], moments.halves[1 - half]
        problem = Problem.of(weights, ridged(fitted.second, ridge, typical, damping=DAMPING))
        rounded = problem.stored(gptq(problem.weights, problem.factor, grid))
        return float(objective(weights, rounded, judge.second).sum())

    losses = dict(_sums(loss, ROUNDING_RIDGES))
    return min(ROUNDING_RIDGES, key=losses.__getitem__)

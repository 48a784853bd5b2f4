"""What errors at a layer's output cost the network: one level for each layer, from tests that chance disturbs.

In a test k one layer l is rounded alone, loses a share s of the power of its output, and the network loses d:

    log d[l, k] = level[l] + (1 + slope) log s[l, k] + noise

A classifier has few outputs, and the errors of one layer push them in few directions: however many samples a test runs
on, it is off by a third to a half. So there are several tests, each with codes of its own. The slope is that of all
layers. Noise is seen in what remains, and a level is pulled to the mean of all as far as noise explains that it lies
apart (empirical Bayes; Efron and Morris 1975, "Data analysis using Stein's estimator").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STEEPEST = 0.9  # slope beyond which a fit to few tests is not believed, up or down
LEAST = 1e-30  # power of an output that is always zero

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Cost:
    """What a layer's output error costs.

    Attributes:
        power: of the output that is to be kept.
        level: logarithm of what the loss of the whole output would cost, in nats of softened KL or relative error.
        common: the same, if every layer may lose the same share.
        slope: see above.
    """

    power: float
    level: float
    common: float
    slope: float

    def of(self, error: float, tilt: float = 0.0) -> float:
        """What an output error costs.

        Args:
            error: of the output.
            tilt: 0 takes the layer's own level, 1 the common one.
        """
        if error <= 0:
            return 0.0
        level = self.level + tilt * (self.common - self.level)
        return float(np.exp(level + (1 + self.slope) * np.log(error / max(LEAST, self.power))))


def fitted_costs(shown: Mapping[str, Sequence[tuple[float, float]]], powers: Mapping[str, float]) -> dict[str, Cost]:
    """The cost of each layer.

    Args:
        shown: of each layer, output errors in its tests and what the network lost by each; as many for every layer.
        powers: of their outputs.
    """
    alive = [layer for layer in shown if powers[layer] > LEAST]
    if not alive:
        return {layer: Cost(powers[layer], 0.0, 0.0, 0.0) for layer in shown}
    errors, lost = np.log(np.array([shown[layer] for layer in alive])).transpose(2, 0, 1)
    shares = errors - np.log([[powers[layer]] for layer in alive])
    units = lost - shares
    slope, noise = _common_slope(shares, units)
    levels = (units - slope * shares).mean(axis=1)
    common = float(levels.mean())
    spread = float(levels.var(ddof=1)) if len(levels) > 1 else 0.0
    trust = max(0.0, 1 - noise / spread) if spread > 0 else 1.0
    pulled = dict(zip(alive, (common + trust * (levels - common)).tolist(), strict=True))
    return {layer: Cost(powers[layer], pulled.get(layer, common), common, slope) for layer in shown}


def _common_slope(shares: Array, units: Array) -> tuple[float, float]:
    """The slope of units over shares within layers, and the variance of a layer's mean that noise makes."""
    x, y = (each - each.mean(axis=1, keepdims=True) for each in (shares, units))
    square = float((x**2).sum())
    slope = float(np.clip((x * y).sum() / square, -STEEPEST, STEEPEST)) if square > 0 else 0.0
    free = y.size - len(y) - 1
    noise = float(((y - slope * x) ** 2).sum()) / free if free > 0 else 0.0
    return slope, noise / shares.shape[1]

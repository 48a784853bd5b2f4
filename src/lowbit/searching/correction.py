"""Forecasts corrected by what measured files lost: one factor for each family, found by least squares on logarithms.

    log distance[k]  ~  log sum_f exp(a[f]) forecast[k][f],    with a penalty on each a[f] away from their mean

so that few files move the common level first, and families apart only where several files say so.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

PENALTY = 0.1  # of a family's factor away from the others', in squared residuals
LEVEL_PENALTY = 1e-3
STEPS = 20
LEAST = 1e-12


def family_factors(parts: Sequence[Mapping[str, float]], measured: Sequence[float]) -> dict[str, float]:
    """What the forecasts of each family are to be multiplied with.

    Args:
        parts: of each measured file, the forecast by family.
        measured: its distance from float.

    Returns:
        Factors by family; 1 for all without any file.
    """
    used = [k for k, value in enumerate(measured) if math.isfinite(value) and value > 0 and sum(parts[k].values()) > 0]
    families = sorted({family for part in parts for family in part})
    if not used or not families:
        return dict.fromkeys(families, 1.0)
    forecast = np.array([[parts[k].get(family, 0.0) for family in families] for k in used])
    wanted = np.log(np.maximum([measured[k] for k in used], LEAST))
    logs = np.full(len(families), float(np.mean(wanted - np.log(np.maximum(forecast.sum(axis=1), LEAST)))))
    apart = np.eye(len(families)) - 1 / len(families)
    penalty = PENALTY * apart.T @ apart + LEVEL_PENALTY * np.eye(len(families))
    level = logs.copy()
    for _ in range(STEPS):
        contributions = forecast * np.exp(logs)
        total = np.maximum(contributions.sum(axis=1), LEAST)
        slopes = contributions / total[:, None]
        residuals = wanted - np.log(total)
        step = np.linalg.solve(slopes.T @ slopes + penalty, slopes.T @ residuals - penalty @ (logs - level))
        logs += np.clip(step, -1.0, 1.0)
    return {family: float(math.exp(value)) for family, value in zip(families, logs, strict=True)}

"""The largest magnitude and the mean square of each channel of an activation, in one streaming pass.

The runtime reduces each tensor to one number per image and channel while it has it in hand, so neither memory nor time
depends on the size of the tensors that are measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.batches import Batches, outputs_of
from lowbit.calibration.statistics import shared_batch_size
from lowbit.data.dataset import Dataset
from lowbit.graph.model import Model
from lowbit.graph.summaries import MOST, POWER, with_channel_summaries
from lowbit.progress import SILENT, Progress

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ChannelStatistics:
    """What calibration showed of each channel (dimension 1) of one tensor, in the tensor's own units.

    Attributes:
        max_abs: largest magnitude seen, float64 [channels].
        power: mean square over images and positions, float64 [channels].
    """

    max_abs: Array
    power: Array


def channel_statistics(
    model: Model,
    data: Dataset,
    tensors: Sequence[str],
    *,
    threads: int = 0,
    progress: Progress = SILENT,
) -> dict[str, ChannelStatistics]:
    """Run the float model over the images once and measure each channel of the named tensors.

    Args:
        model: the prepared float model.
        data: calibration samples; labels are not used.
        tensors: names of float tensors of the graph, [N, channels, ...].
        threads: total number of threads; 0 takes one per processor core.
        progress: told after every batch.

    Returns:
        The statistics of each tensor, by name.

    Raises:
        DataError: too few samples for one run.
    """
    if not tensors:
        return {}
    batches = Batches(model, data, shared_batch_size(model, tensors, threads))
    max_abs = {name: np.zeros(1) for name in tensors}
    powers = {name: np.zeros(1) for name in tensors}
    rows = dict.fromkeys(tensors, 0)
    results = outputs_of(with_channel_summaries(model, tensors), batches, threads=threads)
    for _, outputs in progress.track(results, "measuring channels", total=len(batches)):
        for name in tensors:
            most, power = outputs[MOST + name], outputs[POWER + name]
            max_abs[name] = np.maximum(max_abs[name], most.reshape(len(most), -1).max(axis=0))
            for image in power.reshape(len(power), -1):  # one by one: the sum must not depend on the size of batches
                powers[name] = powers[name] + image
            rows[name] += len(power)
    return {name: ChannelStatistics(max_abs[name], powers[name] / rows[name]) for name in tensors}

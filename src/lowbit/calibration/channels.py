"""The largest magnitude and the mean square of each channel of an activation, in one streaming pass.

The runtime reduces each tensor to one number per image and channel while it has it in hand, so neither memory nor time
depends on the size of the tensors that are measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.batches import Batches
from lowbit.calibration.statistics import batch_size_for
from lowbit.data.images import Images
from lowbit.engines import open_session
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
    images: Images,
    tensors: Sequence[str],
    *,
    threads: int = 0,
    progress: Progress = SILENT,
) -> dict[str, ChannelStatistics]:
    """Run the float model over the images once and measure each channel of the named tensors.

    Args:
        model: the prepared float model.
        images: calibration images; labels are not used.
        tensors: names of float tensors of the graph, [N, channels, ...].
        threads: threads of the runtime; 0 leaves it to the runtime.
        progress: told after every batch.

    Returns:
        The statistics of each tensor, by name.

    Raises:
        DataError: too few images for one batch.
    """
    if not tensors:
        return {}
    session = open_session(with_channel_summaries(model, tensors), threads=threads)
    batches = Batches(model, images, batch_size_for(model, tensors))
    max_abs = {name: np.zeros(1) for name in tensors}
    power = {name: np.zeros(1) for name in tensors}
    count = 0
    for x in progress.track(batches, "measuring channels", total=len(batches)):
        outputs = session.run({model.input.name: x})
        for name in tensors:
            batch_max = outputs[MOST + name].reshape(len(x), -1)
            batch_power = outputs[POWER + name].reshape(len(x), -1)
            max_abs[name] = np.maximum(max_abs[name], batch_max.max(axis=0))
            power[name] = power[name] + batch_power.sum(axis=0, dtype=np.float64)
        count += len(x)
    return {name: ChannelStatistics(max_abs[name], power[name] / count) for name in tensors}

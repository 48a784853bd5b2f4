"""How far each channel of an activation reaches, and how strong it is: one streaming pass.

The runtime reduces each tensor to one number an image and channel while it has it in hand, so that neither memory nor
time depends on the size of the tensors that are looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.batches import Batches
from lowbit.calibration.statistics import batch_for
from lowbit.data.images import Images
from lowbit.engines import open_session
from lowbit.graph.model import Model
from lowbit.graph.summaries import MOST, POWER, with_channel_summaries
from lowbit.progress import SILENT, Progress

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ChannelRange:
    """What the images do to each channel (dimension 1) of a tensor.

    Attributes:
        highest: largest magnitude seen, [channels], float64.
        power: mean square over images and positions, [channels], float64.
    """

    highest: Array
    power: Array


def channel_ranges(
    model: Model,
    images: Images,
    tensors: Sequence[str],
    *,
    threads: int = 0,
    progress: Progress = SILENT,
) -> dict[str, ChannelRange]:
    """Run the float model over the images once and keep reach and power of each channel of the named tensors."""
    if not tensors:
        return {}
    session = open_session(with_channel_summaries(model, tensors), threads=threads)
    batches = Batches(model, images, batch_for(model, tensors))
    highest = {name: np.zeros(1) for name in tensors}
    power = {name: np.zeros(1) for name in tensors}
    count = 0
    for x in progress.track(batches, "measuring channels", total=len(batches)):
        outputs = session.run({model.input.name: x})
        for name in tensors:
            most = outputs[MOST + name].reshape(len(x), -1)
            square = outputs[POWER + name].reshape(len(x), -1)
            highest[name] = np.maximum(highest[name], most.max(axis=0))
            power[name] = power[name] + square.sum(axis=0, dtype=np.float64)
        count += len(x)
    return {name: ChannelRange(highest[name], power[name] / count) for name in tensors}

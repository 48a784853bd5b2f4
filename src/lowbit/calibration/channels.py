"""How far each channel of an activation reaches: one streaming pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.data.images import Images
from lowbit.engines import open_session
from lowbit.graph.model import Model
from lowbit.progress import SILENT, Progress

BATCH = 8

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ChannelRange:
    """Reach of each channel (dimension 1) of a tensor.

    Attributes:
        highest: largest value seen, [channels].
        usual: mean over images of the largest magnitude, [channels]: what one image needs, outliers aside.
    """

    highest: Array
    usual: Array


def channel_ranges(
    model: Model,
    images: Images,
    tensors: Sequence[str],
    *,
    threads: int = 0,
    progress: Progress = SILENT,
) -> dict[str, ChannelRange]:
    """Run the float model over the images once and keep how far each channel of the named tensors reaches."""
    if not tensors:
        return {}
    session = open_session(model.with_outputs(list(tensors)), threads=threads)
    first = model.input.shape[0] if model.input.shape else None
    size = first if isinstance(first, int) else BATCH
    highest: dict[str, Array] = {}
    totals: dict[str, Array] = {}
    count = 0
    for part in progress.track(images.batches(size), "looking at channels", total=-(-images.count // size)):
        if isinstance(first, int) and len(part.x) < size:
            continue
        found = session.run({model.input.name: part.x})
        for name in tensors:
            x = found[name].reshape(*found[name].shape[:2], -1)
            top, bottom = x.max(axis=2), x.min(axis=2)
            most = np.maximum(top, -bottom).sum(axis=0, dtype=np.float64)
            highest[name] = np.maximum(highest[name], top.max(axis=0)) if name in highest else top.max(axis=0)
            totals[name] = totals[name] + most if name in totals else most
        count += len(part.x)
    return {name: ChannelRange(highest[name], totals[name] / max(1, count)) for name in tensors if name in highest}

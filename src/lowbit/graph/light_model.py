"""What runtimes open instead of a whole file, apart from the rest of this room: that takes half a second to import."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class LightModel:
    """An ONNX file that only names its large weights, with the weights beside it, where the runtime reads them.

    Serialized weights are copied into the message, its bytes, and the runtime's own message and tensors: four times the
    weights for a moment, and half of that for as long as the session lives.

    Args:
        content: the file.
        weights: float32, contiguous, by initializer name; treat as read-only.
    """

    content: bytes = field(repr=False)
    weights: Mapping[str, np.ndarray] = field(repr=False)

"""Networks in float16, bfloat16 or float64: lowbit works on them in float32, and remembers what they were.

So every other module knows one float type. A file written for such a network takes, gives and computes in the
network's own type again, as far as runtimes can (`lowbit.formats.onnx.float_types`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

FLOAT = ir.DataType.FLOAT
FLOATS = {"float32": FLOAT, "float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
FLOATS |= {"float64": ir.DataType.DOUBLE}
NAMES: dict[ir.DataType | None, str] = {kind: name for name, kind in FLOATS.items()}
# Notes in `meta`: on the graph the `Precision`, on a node that it computed in float32 before.
NOTE, IN_FLOAT32 = "lowbit.precision", "lowbit.float32"


@dataclass(frozen=True)
class Precision:
    """The float type that a network had before it was prepared.

    Attributes:
        type: that of most weights, a key of `FLOATS`.
        ends: the types of its inputs and outputs that were of other float types than float32.
        exact: float64 constants as they were, by name; of the other types float32 holds every value.
    """

    type: str = "float32"
    ends: Mapping[str, str] = field(default_factory=dict)
    exact: Mapping[str, np.ndarray] = field(default_factory=dict)


FLOAT32_NETWORK = Precision()


def noted(model: ir.Model) -> Precision:
    """What `rewrites.other_floats` found."""
    found = model.graph.meta.get(NOTE)
    return found if isinstance(found, Precision) else FLOAT32_NETWORK

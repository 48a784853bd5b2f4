"""What the plan says of integer weights that are packed: which are too small for it, and where loading takes long."""

import math
from collections.abc import Sequence

from lowbit.formats.onnx.decode_nodes import packing_saves, tables_pay, unpacking_seconds
from lowbit.quantization.planning.tensors import TensorPlan

SLOW_LOADING = 1.0  # seconds of unpacking from which on the plan speaks of them


def packing_notes(tensors: Sequence[TensorPlan]) -> list[str]:
    """One sentence each, without a full stop.

    Args:
        tensors: weights of integer layers of which fewer bits were asked for than a byte has.
    """
    given = [(tensor.given, math.prod(tensor.shape)) for tensor in tensors if tensor.given is not None]
    pays = tables_pay(given)
    whole = [size for scheme, size in given if not (pays and packing_saves(scheme, size))]
    notes = []
    if whole:
        share = 100 * sum(whole) / sum(size for _, size in given)
        percent = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
        notes.append(
            f"{len(whole)} of {len(given)} weights, {percent} % of the values, take a byte each: too small for the "
            "nodes that would unpack them"
        )
    seconds = sum(unpacking_seconds(scheme, size) for scheme, size in given)
    if seconds >= SLOW_LOADING:
        notes.append(f"unpacking the weights takes about {seconds:.0f} s each time that the file is loaded")
    return notes

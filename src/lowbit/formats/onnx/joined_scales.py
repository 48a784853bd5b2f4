"""Parts of a Concat in one scale, where their ranges are much alike.

A part that something else reads as well, such as what a block of a YOLO splits and joins again, keeps the scale that
suits it, and is rounded to that of the Concat on its way there. For OpenVINO each such rounding is a kernel of its own.
Where the range of all parts is little larger than that of each, all get it, and what is joined keeps its error: a small
YOLO takes 0.94 of the time. The skip of a U-Net, which is never negative, would lose a bit to what it is joined with
(0.6 dB of its output), so that it keeps its own.

Biases are in units of the activations that layers read, so they are rounded again. Saturation may no longer stand for a
Relu or Clip in the new range: the node is written, and OpenVINO computes it inside the layer before it.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lowbit.formats.quantized_graph import DATA_MOVEMENT, ActivationCodes, BiasCodes, QuantizedGraph
from lowbit.graph.ops import layers

KEEPS_SCALE = DATA_MOVEMENT | {"Relu", "Clip"}
# By how much a part's steps may grow: a third of a bit. Ranges of parts of one kind differ by 1.2 at most (the zoo).
LARGEST_GROWTH = 1.25


def with_joined_scales(quantized: QuantizedGraph) -> QuantizedGraph:
    """The same network with one scale for all parts of such a Concat, and for what keeps a scale on the way there."""
    activations = dict(quantized.activations)
    for group in _groups(quantized):
        together = _union({activations[name] for name in group})
        if all(together.scale <= LARGEST_GROWTH * activations[name].scale for name in group):
            activations |= dict.fromkeys(group, together)
    changed = {name for name, codes in activations.items() if codes != quantized.activations[name]}
    biases = dict(quantized.biases)
    for layer in layers(quantized.model):
        if layer.input in changed and layer.node in biases:
            ratio = activations[layer.input].scale / quantized.activations[layer.input].scale
            biases[layer.node] = _rescaled(biases[layer.node], ratio)
    written = {str(node.name) for node in quantized.model.graph if node.outputs[0].name in changed}
    return replace(quantized, activations=activations, biases=biases, absorbed=quantized.absorbed - written)


def _groups(quantized: QuantizedGraph) -> list[frozenset[str]]:
    """For each set of Concats that are linked, the tensors that would have one scale."""
    activations = quantized.activations
    groups = {name: frozenset((name,)) for name in activations}

    def link(names: Iterable[str]) -> None:
        together = frozenset[str]().union(*(groups[name] for name in names))
        groups.update(dict.fromkeys(together, together))

    joined: list[str] = []
    for node in quantized.model.graph:
        if node.name not in quantized.integer:
            continue
        inputs = [str(value.name) for value in node.inputs if value is not None and value.name in activations]
        outputs = [str(value.name) for value in node.outputs if value.name in activations]
        if node.op_type == "Concat" and len(inputs) == len(node.inputs):
            link([*inputs, *outputs])
            joined += outputs
        elif node.op_type in KEEPS_SCALE and inputs:
            link([*inputs[:1], *outputs])
    return list(dict.fromkeys(groups[name] for name in joined))


def _union(each: set[ActivationCodes]) -> ActivationCodes:
    """Codes that cover the ranges of all; the same ones if there is only one kind."""
    first = next(iter(each))
    if len(each) == 1:
        return first
    highest = first.kind.levels - 1
    low = min(-codes.zero_point * codes.scale for codes in each)
    high = max((highest - codes.zero_point) * codes.scale for codes in each)
    return first.kind.codes(low, high)


def _rescaled(bias: BiasCodes, ratio: float) -> BiasCodes:
    """The same bias in units that are larger by `ratio`."""
    codes = (np.rint(bias.codes / (ratio * bias.multiple)) * bias.multiple).astype(np.int32)
    return replace(bias, codes=codes, scale=(bias.scale * ratio).astype(np.float32))

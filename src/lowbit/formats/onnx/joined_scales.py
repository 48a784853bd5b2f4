"""Parts of a Concat in one scale, where their ranges are much alike.

A part that something else reads as well, such as what a block of a YOLO splits and joins again, keeps the scale that
suits it, and is rounded to that of the Concat on its way there. For OpenVINO each such rounding is a kernel of its own.
Where the range of both is little larger than that of each, both get it, and what is joined keeps its error: FastestDet,
a chain of such blocks, takes 0.95 of the time. The skip of a U-Net, which is never negative, would lose a bit to what
it is joined with (0.6 dB of its output), so that it keeps its own.

Biases are in units of the activations that layers read, so they are rounded again. Saturation may no longer stand for a
Relu or Clip in the new range: the node is written, and OpenVINO computes it inside the layer before it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lowbit.formats.quantized_graph import DATA_MOVEMENT, ActivationCodes, BiasCodes, QuantizedGraph
from lowbit.graph.model import Value
from lowbit.graph.ops import layers

KEEPS_SCALE = DATA_MOVEMENT | {"Relu", "Clip"}
# By how much a part's steps may grow: half a bit.
LARGEST_GROWTH = math.sqrt(2)


def with_joined_scales(quantized: QuantizedGraph) -> QuantizedGraph:
    """The same network with one scale for parts of such a Concat, and for what keeps a scale on the way there."""
    activations = {name: codes for group in _groups(quantized) for name, codes in group.items()}
    changed = {name for name, codes in activations.items() if codes != quantized.activations[name]}
    biases = dict(quantized.biases)
    for layer in layers(quantized.model):
        if layer.input in changed and layer.node in biases:
            ratio = activations[layer.input].scale / quantized.activations[layer.input].scale
            biases[layer.node] = _rescaled(biases[layer.node], ratio)
    written = {str(node.name) for node in quantized.model.graph if node.outputs[0].name in changed}
    return replace(
        quantized,
        activations={**quantized.activations, **activations},
        biases=biases,
        absorbed=quantized.absorbed - written,
    )


def _groups(quantized: QuantizedGraph) -> Iterator[dict[str, ActivationCodes]]:
    """Tensors that get one scale, with the codes that cover the ranges of all."""
    activations = quantized.activations
    groups = {name: frozenset((name,)) for name in activations}

    def link(names: Sequence[str], most: float) -> None:
        together = frozenset[str]().union(*(groups[name] for name in names))
        scale = _union({activations[name] for name in together}).scale
        if scale <= most * min(activations[name].scale for name in together):
            groups.update(dict.fromkeys(together, together))

    nodes = [node for node in quantized.model.graph if node.name in quantized.integer]
    ends = [(_coded(node.inputs, activations), _coded(node.outputs, activations)) for node in nodes]
    for node, (inputs, outputs) in zip(nodes, ends, strict=True):
        if node.op_type in KEEPS_SCALE and inputs:
            link([*inputs[:1], *outputs], math.inf)
    # One after the other: in a chain of blocks as many as are much alike.
    for node, (inputs, outputs) in zip(nodes, ends, strict=True):
        for name in inputs if node.op_type == "Concat" and outputs else ():
            link([name, *outputs], LARGEST_GROWTH)
    for group in dict.fromkeys(groups.values()):
        codes = _union({activations[name] for name in group})
        yield dict.fromkeys(group, codes)


def _coded(values: Iterable[Value | None], activations: Mapping[str, ActivationCodes]) -> list[str]:
    return [str(value.name) for value in values if value is not None and value.name in activations]


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

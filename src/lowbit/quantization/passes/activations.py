"""Activations and biases as integers: scales from ranges, biases in units of the products they are added to."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lowbit.calibration.ranges import RANGE_RULES
from lowbit.calibration.statistics import Statistics
from lowbit.formats.devices import DEVICES
from lowbit.formats.quantized_graph import UINT8, ActivationCodes, BiasCodes, Codes
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer
from lowbit.quantization.planning.plan import Plan
from lowbit.schemes.codes import IntegerCodes

INT32_LIMIT = 2**31 - 1
AT_LIMIT = 0.45  # share of the limit that only a bias takes whose scale was made for it (`least_scales`)
WIDE_LIMIT = 2**40 - 1  # what accumulators of NPUs hold as well
# With 65,536 levels one bit is spent on values that calibration images do not have: clipping would cost far more.
HEADROOM = {8: 1.0, 16: 2.0}


def activation_codes(decision: Plan, statistics: Statistics) -> dict[str, ActivationCodes]:
    """Scale and zero point of every tensor that becomes codes, one for each scale group, by the recipe's range rule."""
    rule, kind = RANGE_RULES[decision.range_rule], decision.activations
    codes: dict[str, ActivationCodes] = {}
    for group in decision.scale_groups:
        intervals = [rule(statistics.tensors[tensor], kind.levels) for tensor in group]
        low, high = min(interval[0] for interval in intervals), max(interval[1] for interval in intervals)
        room = HEADROOM[kind.bits]
        codes |= dict.fromkeys(group, kind.codes(room * low, room * high))
    return codes


def output_codes(model: Model, decision: Plan, statistics: Statistics) -> dict[str, ActivationCodes]:
    """Scale and zero point of every float output of the model, for files that give codes."""
    rule, kind = RANGE_RULES[decision.range_rule], decision.activations
    seen = statistics.tensors
    names = [output.name for output in model.outputs if output.name in seen]
    return {name: kind.codes(*rule(seen[name], kind.levels)) for name in names}


def bias_limit(decision: Plan) -> int:
    """The largest integer that a bias may be in a plan's files.

    Sums of 16-bit activations have 64 bits in LiteRT, and ONNX Runtime adds them in float.
    """
    if decision.activations.bits == UINT8.bits:
        return INT32_LIMIT
    return DEVICES[decision.target].largest_bias if decision.target in DEVICES else WIDE_LIMIT


def large_biases(biases: Mapping[str, BiasCodes], limit: int) -> str:
    """One sentence on the channels whose scales had to grow for their biases to fit; empty if there are none."""
    crowded = {node: int((np.abs(bias.codes) >= AT_LIMIT * limit).sum()) for node, bias in biases.items()}
    named = [node for node, count in crowded.items() if count]
    if not named:
        return ""
    bits = limit.bit_length() + 1
    return (
        f"{sum(crowded.values())} channels (of {', '.join(named)}) have coarser weights than their sizes need, so that "
        f"their biases fit into {bits} bits."
    )


def least_scales(
    bias: npt.NDArray[np.floating], inputs: ActivationCodes, limit: int = INT32_LIMIT
) -> npt.NDArray[np.float64]:
    """The smallest weight scale of each channel with which its bias takes at most half of its integers [channels].

    Args:
        bias: [channels].
        inputs: codes of the layer's input.
        limit: the largest integer of a bias.
    """
    return np.abs(bias.astype(np.float64)).reshape(-1) / (inputs.scale * limit * 0.5)


def fit_biases(
    model: Model,
    running: list[Layer],
    weights: Mapping[str, Codes],
    activations: Mapping[str, ActivationCodes],
    limit: int = INT32_LIMIT,
) -> tuple[dict[str, Codes], dict[str, BiasCodes]]:
    """Integer biases up to a limit; a channel whose scale is too small for its bias to fit gets a larger scale first.

    Batch norms folded with a tiny variance leave channels of nearly zero weights and a large bias: in units of their
    own scale the bias would overflow int32, silently, as it does elsewhere (onnxruntime #21000). What such a channel
    decodes to is rounded again on its new scale; all other channels keep the codes that were chosen for them.
    """
    adjusted = dict(weights)
    for layer in running:
        codes = adjusted[layer.weight]
        if layer.bias is None or layer.bias_node is not None or not isinstance(codes, IntegerCodes):
            continue
        scale = codes.scale.reshape(-1)
        least = least_scales(model.weights[layer.bias], activations[layer.input], limit)
        least = least if scale.size > 1 else least.max(keepdims=True, initial=0.0)
        if np.any(least > scale):
            wanted = np.maximum(scale, least).astype(np.float32)
            adjusted[layer.weight] = codes.rounded_on(codes.decode(), wanted)
    biases = {}
    for layer in running:
        codes = adjusted[layer.weight]
        if layer.bias is not None and layer.bias_node is None and isinstance(codes, IntegerCodes):
            scale = np.float32(activations[layer.input].scale) * codes.scale.reshape(-1)
            exact = np.round(model.weights[layer.bias].astype(np.float64) / scale)
            fitting = np.clip(exact, -limit, limit)
            whole = fitting.astype(np.int32) if limit == INT32_LIMIT else fitting.astype(np.int64)
            biases[layer.node] = BiasCodes(whole, scale)
    return adjusted, biases

"""The steps between plain codes and the file: each makes a candidate, and says how much better it must be to be kept.

A step that a network does not like costs time but never accuracy, and the report can say what each one brought
(`passes.validation` measures it). Bias correction and rounding are given the benefit of the doubt, see
`BIAS_CORRECTION_TOLERANCE` and `ROUNDING_TOLERANCE`; the exact input is always kept: exact is exact, and what the
images at hand say of it is chance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lowbit.calibration.channels import channel_statistics
from lowbit.data.dataset import Dataset
from lowbit.formats.input_bytes import with_exact_input
from lowbit.graph.ops import Layer, layers
from lowbit.progress import Progress
from lowbit.quantization.equalizing.equalization import Equalized, equalizable, equalize_network
from lowbit.quantization.passes.activations import bias_limit, least_scales
from lowbit.quantization.passes.bias_correction import correctable, corrected_biases
from lowbit.quantization.passes.candidate import (
    Candidate,
    DecodedWeights,
    assembled,
    measured_ranges,
    on_bytes,
    plain_codes,
)
from lowbit.quantization.passes.layerwise import LayerwisePass
from lowbit.quantization.passes.validation import Distances
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import OTHER_RANGES
from lowbit.quantization.planning.steps import BIAS, EQUALIZATION, EXACT_INPUT, RANGES, ROUNDING
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.layer import solve_layer
from lowbit.quantization.solving.stored_scales import narrow_bias
from lowbit.schemes.codes import Codes

# Rounding makes up for most of what plain encoding loses. So equalization has to be forecast to leave less than this of
# the noise; where weights are all that is rounded, it also has to make KL this much smaller before rounding, to make it
# smaller behind it too. Forecasts are 0.67 to 0.99 where it does not pay (ResNet20, EfficientNet-Lite0, MobileNetV2),
# 0.25 on MobileNetV2-0.35, 4e-5 on FastestDet, and 0.01 to 0.3 where depthwise channels are 100 apart.
EQUALIZATION_GAIN = 0.5
POWER_IMAGES = 64  # that the power of channels is taken from
# Corrected means are right on any images, and what KL says of them on those of the calibration is half chance: on the
# study's network 1.8e-5 without, 1.8e-5 to 2.5e-5 with, by the images that means are taken from; on test images 2.4e-4
# without and 1.4e-4 to 1.8e-4 with all of them.
BIAS_CORRECTION_TOLERANCE = 1.5
# Rounding was better on unseen images on all networks at hand, also where a few images that judge were undecided.
ROUNDING_TOLERANCE = 1.1
# Clipped values cannot be made good by rounding, which smaller steps can: what narrower ranges win has to be more than
# that. On a detector, 3 % before rounding were 8 % of the cells lost behind it.
NARROWING_GAIN = 0.9
BIAS_ROOM = 1.1  # times the trained bias, that scales leave room for: rounding corrects it


@dataclass(frozen=True)
class StepResult:
    """One step that was tried.

    Attributes:
        name: as in the plan.
        before: how far the network was from float without it, by `measure`, on images that judge.
        after: with it.
        fitted: with it, on the images that it was fitted to.
        measure: see `Validation.measure`.
        kept: whether it was kept; it is dropped if it did not help, or, given the benefit of the doubt (a tolerance
            above 1), if it clearly harmed.
        seconds: what it took.
        note: a detail worth knowing.
    """

    name: str
    before: float
    after: float
    fitted: float
    measure: str
    kept: bool
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class StepData:
    """What steps may look at.

    Attributes:
        fitting: samples that candidates are fitted to.
        every: those that judge, too: only how far channels reach is taken from all.
    """

    fitting: Dataset
    every: Dataset


@dataclass(frozen=True)
class Step:
    """A row of `STEPS`.

    Attributes:
        take: makes a candidate from the one before, the samples that it may look at, and threads; the same graph again
            says that it is not worth trying.
        tolerance: a candidate is kept that is less than this many times as far from float as the one before it;
            infinite keeps all.
        searches: whether a higher effort takes longer over it and may find something else: then it also begins from
            what a lower effort gives, and from the trained network where that was equalized.
    """

    take: Callable[[Candidate, StepData, int, Progress], Candidate]
    tolerance: Callable[[Plan], float]
    searches: bool = False

    def keeps(self, plan: Plan, before: Distances, after: Distances, *, doubt: bool = True) -> bool:
        """Whether a candidate this far from float is kept in place of the one before.

        Without the benefit of the `doubt` only if it is closer beyond chance.
        """
        tolerance = self.tolerance(plan) if doubt else 1.0
        return math.isinf(tolerance) or after.closer_than(before, tolerance=tolerance)


def narrow(before: Candidate, data: StepData, threads: int, progress: Progress) -> Candidate:
    """The other range rule, which clips what is rare."""
    plan = replace(before.plan, recipe=replace(before.plan.recipe, ranges=OTHER_RANGES))
    graph = on_bytes(assembled(before.base, plan, before.graph.weights, {}, before.statistics), plan)
    if graph.activations == before.graph.activations:
        return replace(before, note="it gives the same ones")
    return replace(before, plan=plan, graph=graph, note=f"range rule {OTHER_RANGES}")


def take_bytes(before: Candidate, data: StepData, threads: int, progress: Progress) -> Candidate:
    """The float input taken as the image bytes that it was made from."""
    return replace(before, graph=with_exact_input(before.graph), note="")


def equalize(before: Candidate, data: StepData, threads: int, progress: Progress) -> Candidate:
    """The plainly encoded network with rescaled channels."""
    model, plan = before.base, before.plan
    schemes = {tensor.tensor: tensor.given for tensor in plan.quantized if tensor.given is not None}

    def equalized_on(images: Dataset) -> Equalized:
        channels = channel_statistics(model, images, equalizable(model), threads=threads, progress=progress)
        return equalize_network(model, channels, schemes, plan.scale_groups)

    # Each channel is given all of the range that its tensor has: one that reaches farther on other images is clipped.
    few = data.every.subset(min(POWER_IMAGES, data.every.count))
    equalized = equalized_on(few)
    forecast = f"{equalized.noise_ratio:.2g} of the noise expected"
    if equalized.noise_ratio >= EQUALIZATION_GAIN:
        return replace(before, note=forecast)
    if plan.integer and few.count < data.every.count:
        equalized = equalized_on(data.every)  # where activations are rounded, the largest values matter
    statistics = measured_ranges(equalized.model, plan, data.fitting, threads, progress)
    codes = plain_codes(equalized.model, plan, progress)
    graph = on_bytes(assembled(equalized.model, plan, codes, {}, statistics), plan)
    note = f"{equalized.rescaled_channels} of {equalized.total_channels} channels, {forecast}"
    return Candidate(plan, equalized.model, graph, statistics, note)


def round_weights(before: Candidate, data: StepData, threads: int, progress: Progress) -> Candidate:
    """Codes and biases solved layer by layer on what the quantized layers before give, rounded activations included."""
    model, plan, effort = before.base, before.plan, EFFORTS[before.plan.effort]
    schemes = {tensor.tensor: tensor.given for tensor in plan.quantized if tensor.given is not None}
    passed = before.byte_layers
    solved_here = [layer for layer in layers(model) if layer.weight in schemes and layer.node not in passed]
    # Codes of what is no layer, and of layers that read image bytes, stay as they are.
    others = before.graph.weights.keys() - {layer.weight for layer in solved_here}
    codes: dict[str, Codes] = {name: item for name, item in before.graph.weights.items() if name in others}
    in_bytes = {layer.weight for layer in layers(model) if layer.node in passed}
    decoded = plan.decoded
    nodes = [layer.node for layer in solved_here]
    run = LayerwisePass(model, data.fitting, nodes, effort, grids=before.grids, threads=threads)
    run.begin_with({name: item.decode() for name, item in codes.items() if name not in in_bytes} | before.byte_values)
    for layer, moments in progress.track(run, "rounding", total=len(run)):
        scheme, least = schemes[layer.weight], least_scale(layer, before)
        solution = solve_layer(layer, model.weights[layer.weight], moments, scheme, effort, least)
        # A weight that several layers share is solved for the first of them.
        solved = codes.setdefault(layer.weight, solution.codes)
        # Integer biases are made from these later; float ones are stored.
        bias = narrow_bias(solution.bias) if layer.weight in decoded else solution.bias
        run.replace(layer, solved.decode(), bias)
    of_bytes = {layer.bias for layer in layers(model) if layer.node in passed and layer.bias is not None}
    biases = {name: before.graph.model.weights[name] for name in of_bytes} | run.biases
    activations = before.graph.activations or None
    graph = assembled(model, plan, codes, biases, before.statistics, activations=activations)
    return replace(before, graph=on_bytes(graph, plan), note=effort.name)


def least_scale(layer: Layer, before: Candidate) -> npt.NDArray[np.float32] | None:
    """The smallest scales with which the layer's bias will fit into int32 [channels]; None for float biases."""
    if layer.node not in before.graph.biases or layer.bias is None:
        return None
    bias, read = before.base.weights[layer.bias], before.graph.activations[layer.input]
    return (BIAS_ROOM * least_scales(bias, read, bias_limit(before.plan))).astype(np.float32)


def correct_biases(before: Candidate, data: StepData, threads: int, progress: Progress) -> Candidate:
    """The codes as they are, with biases that give each channel its float mean."""
    base, plan, graph, of_bytes = before.base, before.plan, before.graph, before.byte_values
    biases = {layer.bias: graph.model.weights[layer.bias] for layer in layers(base) if layer.bias is not None}
    in_bytes = {layer.node: layer.weight for layer in layers(base) if layer.node in before.byte_layers}
    passed = {node for node, weight in in_bytes.items() if weight not in of_bytes}
    coded = {name: codes for name, codes in graph.weights.items() if name not in in_bytes.values()}
    values = biases | dict(graph.float_values)
    given = DecodedWeights(values | of_bytes, coded)
    corrections = corrected_biases(base, data.fitting, given, grids=before.grids, passed=passed, threads=threads)
    total = len(correctable(base, passed))
    corrected = dict(progress.track(corrections, "correcting biases", total=total))
    # Of a layer on bytes the trained bias moves as far: the file's follows it.
    corrected |= {
        name: values[name] + (corrected[name] - of_bytes[name]) for name in of_bytes.keys() & corrected.keys()
    }
    decoded = {layer.bias for layer in layers(base) if layer.weight in plan.decoded}
    corrected = {name: narrow_bias(value) if name in decoded else value for name, value in corrected.items()}
    activations = graph.activations or None
    after = assembled(base, plan, graph.weights, values | corrected, before.statistics, activations=activations)
    return replace(before, graph=on_bytes(after, plan), note="")


# In the order in which they are taken.
STEPS: dict[str, Step] = {
    EXACT_INPUT: Step(take_bytes, lambda plan: math.inf),
    EQUALIZATION: Step(equalize, lambda plan: 1.0 if plan.integer else EQUALIZATION_GAIN),
    RANGES: Step(narrow, lambda plan: NARROWING_GAIN),
    BIAS: Step(correct_biases, lambda plan: BIAS_CORRECTION_TOLERANCE),
    ROUNDING: Step(round_weights, lambda plan: ROUNDING_TOLERANCE, searches=True),
}

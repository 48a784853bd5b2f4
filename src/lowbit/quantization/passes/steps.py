"""The steps between plan and codes, each kept only if it brings the file closer to the float model.

Closeness is measured, not assumed: after each step the file is written, run on calibration images, and its mean KL
divergence from the float model's answers compared with that before; where the file would only unpack weights, the
network runs with what they unpack to. A network is sure of the images that it was trained on, and its softmax then
hides all but the grossest errors: logits are first divided by their mean standard deviation, so that every image has a
say (temperature; Hinton et al. 2015, "Distilling the knowledge in a neural network"). So a step that a network does not
like costs time but never accuracy, and the report can say what each one brought. Bias correction by itself is given the
benefit of the doubt: see `BIAS_CORRECTION_TOLERANCE`.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.channels import channel_ranges
from lowbit.calibration.divergence import answers, mean_kl
from lowbit.calibration.moments import Moments
from lowbit.calibration.statistics import Statistics, calibrate
from lowbit.data.images import Images
from lowbit.formats.input_bytes import with_exact_input
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import ActivationCodes, Codes, QuantizedGraph
from lowbit.graph.model import LightModel, Model
from lowbit.graph.ops import Layer, layers
from lowbit.graph.subgraph import Rounded, Subgraphs
from lowbit.processor import give_back_memory
from lowbit.progress import SILENT, Progress
from lowbit.quantization.equalizing.equalization import Equalized, equalizable, equalize_network
from lowbit.quantization.passes.activations import activation_codes, fit_biases
from lowbit.quantization.passes.bias_correction import corrected_biases
from lowbit.quantization.passes.layerwise import Replacement, walk
from lowbit.quantization.planning.plan import BIAS, EQUALIZATION, EXACT_INPUT, ROUNDING, Plan
from lowbit.quantization.planning.recipes import Recipe
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.layer import solve_layer
from lowbit.quantization.solving.stored_scales import narrow_bias, with_narrow_scales

# Images that steps are judged on; more would hardly change a verdict.
VALIDATION_IMAGES = 256
# Rounding makes up for most of what plain encoding loses: where weights are all that is rounded, scaling channels has
# to be this much better before it to be better after it too. Forecasts are 0.8 to 0.99 on trained networks (ResNet20,
# two MobileNets), 0.05 to 0.3 where depthwise channels are 100 apart and some are cut off, and 0.01 where none are.
EQUALIZATION_GAIN = 0.5
POWER_IMAGES = 64  # that the power of channels is taken from
# Corrected means are right on any images, and what KL says of them on those of the calibration is half chance: on the
# study's network 1.8e-5 without, 1.8e-5 to 2.5e-5 with, by the images that means are taken from; on test images 2.4e-4
# without and 1.4e-4 to 1.8e-4 with all of them.
BIAS_CORRECTION_TOLERANCE = 1.5

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class StepResult:
    """One step that was tried.

    Attributes:
        name: as in the plan.
        kl_before: mean KL from float without it, in nats, on calibration images, logits divided by their deviation.
        kl_after: with it.
        kept: whether it was kept: it is dropped if it did not help (bias correction: if it clearly harmed).
        seconds: what it took.
        note: a detail worth knowing.
    """

    name: str
    kl_before: float
    kl_after: float
    kept: bool
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Work:
    """What the steps work on: see `quantize`."""

    model: Model
    plan: Plan
    images: Images
    effort: Effort
    threads: int = 0
    progress: Progress = SILENT


def run_steps(work: Work) -> tuple[QuantizedGraph, tuple[StepResult, ...], Statistics | None]:
    """Start from plain encoding and take the plan's steps one by one."""
    statistics = first = _statistics(work, work.model)
    plain = _encoded(work, work.model, encode_plainly(work.model, work.plan, work.progress), {}, statistics)
    current = start = _on_bytes(work, plain)
    if not {EQUALIZATION, ROUNDING, BIAS} & set(work.plan.steps):
        return current, (), statistics
    judges = work.images.subset(min(VALIDATION_IMAGES, work.effort.images))
    reference = answers(work.model.light(), work.model, judges, limit=VALIDATION_IMAGES, threads=work.threads)
    give_back_memory()
    temperature = max(1.0, float(reference.std(axis=1).mean()))

    def judge(encoded: QuantizedGraph) -> float:
        found = answers(_runnable(encoded), work.model, judges, limit=VALIDATION_IMAGES, threads=work.threads)
        give_back_memory()
        kl = mean_kl(reference / temperature, found / temperature)
        return kl if math.isfinite(kl) else math.inf

    kl = judge(current)
    results = []
    if current is not plain:
        # Kept in any case: exact is exact, and what the images at hand say of it is chance.
        results.append(StepResult(EXACT_INPUT, judge(plain), kl, True, 0.0))
    if EQUALIZATION in work.plan.steps:
        result, scaled = _equalization(work, kl, judge)
        results.append(result)
        if result.kept and scaled is not None:
            (current, statistics), kl = scaled, result.kl_after
        # Scaled weights that were not kept go with their graph, whose parts point at each other.
        del scaled
        gc.collect()
    base = current.model
    if ROUNDING in work.plan.steps:
        started, note = time.monotonic(), work.effort.name
        candidate = _rounded(work, current, statistics)
        found = judge(candidate)
        if found >= kl and current.model is not work.model:
            # What equalization wins before rounding it may lose behind it.
            other = _rounded(work, start, first)
            if (again := judge(other)) < min(found, kl):
                candidate, found, statistics, note = other, again, first, f"{note}, without equalization"
                base = work.model
        results.append(StepResult(ROUNDING, kl, found, found < kl, time.monotonic() - started, note))
        if found < kl:
            current, kl = candidate, found
    if BIAS in work.plan.steps:
        started = time.monotonic()
        candidate = _corrected(work, current, base, statistics)
        found = judge(candidate)
        kept = found < kl * BIAS_CORRECTION_TOLERANCE
        results.append(StepResult(BIAS, kl, found, kept, time.monotonic() - started))
        if kept:
            current = candidate
    return current, tuple(results), statistics


def _runnable(encoded: QuantizedGraph) -> bytes | LightModel:
    """What answers as the file does: the file, or, where it only unpacks weights, the float graph with these weights.

    Runtimes unpack such a file into the same floats while they load it, and hold the steps between beside them: 1.9 GB
    for the 87 million weights of a ViT-B, four times what the weights take here.
    """
    if encoded.integer or encoded.byte_input is not None:
        return to_onnx(encoded)
    model = encoded.model
    outputs = [output.name for output in model.outputs]
    weights = _Decoded(encoded.float_values, encoded.weights)
    return Subgraphs(model).extract([model.input.name], outputs, weights=weights)[0]


def _on_bytes(work: Work, encoded: QuantizedGraph) -> QuantizedGraph:
    """With the float input taken as image bytes, if the plan says so."""
    return with_exact_input(encoded) if EXACT_INPUT in work.plan.steps else encoded


def _equalization(
    work: Work, kl: float, judge: Callable[[QuantizedGraph], float]
) -> tuple[StepResult, tuple[QuantizedGraph, Statistics | None] | None]:
    """What equalization brings before rounding, and the plainly encoded scaled network if it was looked at."""
    started = time.monotonic()
    equalized = _equalized(work)
    integer, share = work.plan.recipe.integer, f"{equalized.noise:.2g} of the noise expected"
    if not integer and equalized.noise >= EQUALIZATION_GAIN:
        return StepResult(EQUALIZATION, kl, kl, False, time.monotonic() - started, share), None
    statistics = _statistics(work, equalized.model)
    codes = encode_plainly(equalized.model, work.plan, work.progress)
    candidate = _on_bytes(work, _encoded(work, equalized.model, codes, {}, statistics))
    found = judge(candidate)
    kept = found < kl * (1.0 if integer else EQUALIZATION_GAIN)
    note = f"{equalized.changed[0]} of {equalized.changed[1]} channels, {share}"
    return StepResult(EQUALIZATION, kl, found, kept, time.monotonic() - started, note), (candidate, statistics)


def _equalized(work: Work) -> Equalized:
    model, plan = work.model, work.plan
    # Reach matters where activations are rounded; else the mean power is all that is read.
    images = work.images if plan.recipe.integer else work.images.subset(min(POWER_IMAGES, work.images.count))
    ranges = channel_ranges(model, images, equalizable(model), threads=work.threads, progress=work.progress)
    schemes = {tensor.tensor: tensor.given for tensor in plan.quantized if tensor.given is not None}
    return equalize_network(model, ranges, schemes, plan.scale_groups)


def encode_plainly(model: Model, plan: Plan, progress: Progress = SILENT) -> dict[str, Codes]:
    """Every tensor by its scheme alone, as its weights suggest; scales in half precision if codes are coarser."""
    found: dict[str, Codes] = {}
    for tensor in progress.track(plan.quantized, f"encoding {plan.recipe.name}", total=len(plan.quantized)):
        if tensor.given is not None:
            weight = model.weights[tensor.tensor]
            codes = tensor.given.encode(weight, tensor.axis)
            # The scales of integer files go into those of biases, not into the file alone.
            found[tensor.tensor] = codes if plan.recipe.integer else with_narrow_scales(codes, weight)
    return found


def metadata(recipe: Recipe) -> dict[str, str]:
    """What a file says of its making."""
    return {"lowbit.recipe": recipe.name}


def _corrected(work: Work, before: QuantizedGraph, base: Model, statistics: Statistics | None) -> QuantizedGraph:
    """The codes as they are, with the biases that go with them; `base` is the float model that they stand for."""
    # Layers that read image bytes have their codes in other units: they are passed in float.
    bytewise = before.byte_input.layers if before.byte_input is not None else {}
    rounded = _grids(before)
    if bytewise:
        rounded.pop(base.input.name, None)
    biases = {layer.bias: before.model.weights[layer.bias] for layer in layers(base) if layer.bias is not None}
    in_bytes = {layer.weight for layer in layers(base) if layer.node in bytewise}
    coded = {name: codes for name, codes in before.weights.items() if name not in in_bytes}
    now = biases | dict(before.float_values)
    found = corrected_biases(
        base,
        work.images,
        _Decoded(now, coded),
        rounded=rounded,
        passed=frozenset(bytewise),
        threads=work.threads,
        progress=work.progress,
    )
    if not work.plan.recipe.integer:
        found = {name: narrow_bias(value) for name, value in found.items()}
    encoded = _encoded(work, base, before.weights, now | found, statistics, activations=before.activations or None)
    return _on_bytes(work, encoded)


class _Decoded(Mapping[str, Array]):
    """What a quantized network computes with: some tensors as they are, others decoded each time they are asked for."""

    def __init__(self, values: Mapping[str, Array], codes: Mapping[str, Codes]) -> None:
        self._values, self._codes = values, codes

    def __getitem__(self, name: str) -> Array:
        return self._codes[name].decode() if name in self._codes else self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._values, **self._codes})

    def __len__(self) -> int:
        return len({**self._values, **self._codes})

    def __contains__(self, name: object) -> bool:
        return name in self._codes or name in self._values


def _grids(encoded: QuantizedGraph) -> dict[str, Rounded]:
    """The grids that activations are rounded to."""
    return {name: (at.scale, -at.zero_point, 255 - at.zero_point) for name, at in encoded.activations.items()}


def _rounded(work: Work, before: QuantizedGraph, statistics: Statistics | None) -> QuantizedGraph:
    """Codes and corrected biases, layer by layer on the quantized prefix, activations included."""
    model = before.model
    schemes = {tensor.tensor: tensor.given for tensor in work.plan.quantized}
    rounded = _grids(before)
    # Layers that read image bytes have their codes in other units: the walk passes them in float.
    bytewise = before.byte_input.layers if before.byte_input is not None else {}
    if bytewise:
        rounded.pop(model.input.name, None)
    codes: dict[str, Codes] = {
        layer.weight: before.weights[layer.weight] for layer in layers(model) if layer.node in bytewise
    }

    def solve(layer: Layer, moments: Moments) -> Replacement:
        scheme = schemes[layer.weight]
        assert scheme is not None
        solution = solve_layer(layer, model.weights[layer.weight], moments, scheme, work.effort)
        # A weight that several layers share is solved for the first of them.
        codes.setdefault(layer.weight, solution.codes)
        # Integer biases are made from these later; float ones are stored.
        bias = solution.bias if work.plan.recipe.integer else narrow_bias(solution.bias)
        return Replacement(codes[layer.weight].decode(), bias)

    chosen = [layer.node for layer in layers(model) if layer.weight in schemes and layer.node not in bytewise]
    biases = walk(
        model,
        work.images,
        chosen,
        solve,
        rounded=rounded,
        positions=work.effort.positions,
        limit=min(work.effort.images, work.images.count),
        threads=work.threads,
        progress=work.progress,
    )
    return _on_bytes(work, _encoded(work, model, codes, biases, statistics))


def _encoded(
    work: Work,
    model: Model,
    weights: Mapping[str, Codes],
    floats: Mapping[str, Array],
    statistics: Statistics | None,
    *,
    activations: Mapping[str, ActivationCodes] | None = None,
) -> QuantizedGraph:
    """What the steps pass on; `activations` are found from the statistics unless they are known already."""
    about = metadata(work.plan.recipe)
    if statistics is None:
        return QuantizedGraph(model, weights=weights, float_values=floats, metadata=about)
    activations = activation_codes(work.plan, statistics) if activations is None else activations
    integer = frozenset(node.node for node in work.plan.nodes if node.arithmetic == "integer")
    absorbed = frozenset(node.node for node in work.plan.nodes if node.arithmetic == "absorbed")
    corrected = model.with_weights(floats) if floats else model
    running = [layer for layer in layers(model) if layer.node in integer]
    weights, biases = fit_biases(corrected, running, weights, activations)
    return QuantizedGraph(
        corrected,
        weights=weights,
        activations=activations,
        biases=biases,
        integer=integer,
        absorbed=absorbed,
        metadata=about,
    )


def _statistics(work: Work, model: Model) -> Statistics | None:
    if not work.plan.recipe.integer:
        return None
    tensors = [tensor for group in work.plan.scale_groups for tensor in group]
    # Outputs too: a file may give codes, though none of the kernels before needs their scale.
    tensors += [output.name for output in model.outputs if output.dtype == np.float32]
    statistics = calibrate(
        model,
        work.images,
        tensors=tensors,
        threads=work.threads,
        histograms=work.plan.recipe.ranges != "minmax",
        progress=work.progress,
    )
    give_back_memory()
    return statistics

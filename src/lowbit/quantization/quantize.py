"""Carry a plan out: weights, activations and biases become integers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.calibration.ranges import RANGE_RULES
from lowbit.calibration.statistics import Statistics, calibrate
from lowbit.data.images import Images, open_images
from lowbit.errors import DataError
from lowbit.files import write_atomically
from lowbit.formats.encoded import ActivationCodes, BiasCodes, Codes, Encoded
from lowbit.formats.onnx import to_onnx
from lowbit.formats.opening import load
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.progress import SILENT, Progress
from lowbit.quantization.plan import Plan, plan
from lowbit.quantization.recipes import Recipe, parse_recipe
from lowbit.schemes.codes import LinearCodes

ACTIVATION_LEVELS = 256
INT32_LIMIT = 2**31 - 1

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Quantized:
    """A quantized model: the plan that was followed and the integers it led to.

    Attributes:
        plan: what was decided, and why.
        encoded: the float graph with the codes of its quantized tensors.
        calibration: what was learned from the images; None for recipes that need none.
    """

    plan: Plan
    encoded: Encoded
    calibration: Statistics | None = None

    @property
    def model(self) -> Model:
        """The float model this was made from."""
        return self.encoded.model

    def to_bytes(self) -> bytes:
        """The content of the ONNX file."""
        return to_onnx(self.encoded)

    def save(self, path: Path | str) -> Path:
        """Write the ONNX file, whole or not at all.

        Raises:
            OutputError: the folder is not writable, or the disk is full.
        """
        return write_atomically(path, self.to_bytes())


def quantize(
    model: Model | str | Path,
    recipe: str | Recipe,
    *,
    calibration: Images | str | Path | Iterable[Any] | None = None,
    statistics: Statistics | None = None,
    strict: bool = False,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Quantized:
    """Quantize a trained model.

    Args:
        model: a loaded model or the path of one.
        recipe: a recipe or its name, such as `int8`, `linear4`, `cluster2`.
        calibration: images for recipes that look at activations; anything `open_images` takes.
        statistics: of an earlier calibration of the same model, instead of `calibration`.
        strict: refuse if anything asked for cannot be given.
        threads: threads of the runtime during calibration; 0 leaves it to the runtime.
        progress: told as the work goes on.

    Raises:
        SchemeError: no such recipe, or weights that it cannot encode.
        DataError: the recipe needs calibration images and there are none.
        ModelError: nothing to quantize, or quantized already.
        DowngradeError: strict, and something cannot be given.
    """
    if not isinstance(model, Model):
        model = load(model)
    recipe = parse_recipe(recipe)
    decision = plan(model, recipe)
    if strict:
        decision.require_all()
    if recipe.integer and statistics is None:
        statistics = _statistics(model, decision, calibration, threads=threads, progress=progress)
    weights = _encode_weights(model, decision, progress)
    if not recipe.integer or statistics is None:
        return Quantized(decision, Encoded(model, weights=weights, metadata=_metadata(recipe)), statistics)
    activations = _activation_codes(decision, statistics)
    integer = frozenset(node.node for node in decision.nodes if node.arithmetic == "integer")
    absorbed = frozenset(node.node for node in decision.nodes if node.arithmetic == "absorbed")
    running = [layer for layer in layers(model) if layer.node in integer]
    weights, biases = _fit_biases(model, running, weights, activations)
    encoded = Encoded(
        model,
        weights=weights,
        activations=activations,
        biases=biases,
        integer=integer,
        absorbed=absorbed,
        metadata=_metadata(recipe),
    )
    return Quantized(decision, encoded, statistics)


def _statistics(
    model: Model,
    decision: Plan,
    calibration: Images | str | Path | Iterable[Any] | None,
    *,
    threads: int,
    progress: Progress,
) -> Statistics:
    if calibration is None:
        raise DataError(
            f"recipe '{decision.recipe.name}' turns activations into integers and must see some images first.",
            remedy="Give calibration images: --calibration DIR, or calibration= in Python. A few hundred are plenty.",
        )
    images = calibration if isinstance(calibration, Images) else open_images(calibration, model.preprocessing)
    tensors = [tensor for group in decision.scale_groups for tensor in group]
    return calibrate(model, images, tensors=tensors, threads=threads, progress=progress)


def _encode_weights(model: Model, decision: Plan, progress: Progress) -> dict[str, Codes]:
    codes: dict[str, Codes] = {}
    for tensor in progress.track(decision.quantized, f"quantizing {decision.recipe.name}"):
        if tensor.given is not None:
            codes[tensor.tensor] = tensor.given.encode(model.weights[tensor.tensor], tensor.axis)
    return codes


def _activation_codes(decision: Plan, statistics: Statistics) -> dict[str, ActivationCodes]:
    rule = RANGE_RULES[decision.recipe.ranges]
    codes: dict[str, ActivationCodes] = {}
    for group in decision.scale_groups:
        intervals = [rule(statistics.tensors[tensor], ACTIVATION_LEVELS) for tensor in group]
        low, high = min(interval[0] for interval in intervals), max(interval[1] for interval in intervals)
        codes |= dict.fromkeys(group, affine_uint8(low, high))
    return codes


def affine_uint8(low: float, high: float) -> ActivationCodes:
    """Scale and zero point with which 0..255 cover [low, high], low <= 0 <= high, and 0.0 is exact."""
    scale = float(np.float32((high - low) / (ACTIVATION_LEVELS - 1)))
    if not scale >= float(np.finfo(np.float32).tiny):
        # A tensor that was always zero: any scale represents it.
        return ActivationCodes(scale=1.0, zero_point=0)
    return ActivationCodes(scale=scale, zero_point=round(-low / scale))


def _fit_biases(
    model: Model,
    running: list[Layer],
    weights: Mapping[str, Codes],
    activations: Mapping[str, ActivationCodes],
) -> tuple[dict[str, Codes], dict[str, BiasCodes]]:
    """int32 biases; a channel whose scale is too small for its bias to fit gets a larger scale first.

    Batch norms folded with a tiny variance leave channels of nearly zero weights and a large bias: in units of their
    own scale the bias would overflow int32, silently, as it does elsewhere (onnxruntime #21000).
    """
    adjusted = dict(weights)
    for layer in running:
        codes = adjusted[layer.weight]
        if layer.bias is None or layer.bias_node is not None or not isinstance(codes, LinearCodes):
            continue
        bias = np.abs(model.weights[layer.bias].astype(np.float64))
        least = bias / (activations[layer.input].scale * INT32_LIMIT * 0.5)
        scale = codes.scale.reshape(-1)
        if np.any(least > scale if scale.size > 1 else least.max(initial=0.0) > scale):
            wanted = np.maximum(scale, least if scale.size > 1 else least.max()).astype(np.float32)
            adjusted[layer.weight] = codes.scheme.encode_with(model.weights[layer.weight], wanted, axis=codes.axis)
    biases = {}
    for layer in running:
        codes = adjusted[layer.weight]
        if layer.bias is not None and layer.bias_node is None and isinstance(codes, LinearCodes):
            scale = np.float32(activations[layer.input].scale) * codes.scale.reshape(-1)
            exact = np.round(model.weights[layer.bias].astype(np.float64) / scale)
            biases[layer.node] = BiasCodes(np.clip(exact, -INT32_LIMIT, INT32_LIMIT).astype(np.int32), scale)
    return adjusted, biases


def _metadata(recipe: Recipe) -> dict[str, str]:
    return {"lowbit.recipe": recipe.name}

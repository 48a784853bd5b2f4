"""Real bytes of each recipe in each layer: files are written with codes of the right size, and counted part by part.

Bytes do not depend on what the codes say, so nothing has to be solved for them: linear grids are encoded plainly, code
books are made up.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lowbit.calibration.statistics import Statistics
from lowbit.formats.onnx.shares import bytes_by_weight
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import ActivationCodes, QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.graph.weights import all_weights
from lowbit.quantization.passes.candidate import assembled
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe
from lowbit.quantization.planning.tensors import TensorPlan
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.stored_scales import HALF_BITS, narrow_bias, with_narrow_scales
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.codes import Codes
from lowbit.schemes.integer_clusters import IntegerClusters

STEP = 0.05  # of activations in files that are only weighed


@dataclass(frozen=True)
class RecipeSizes:
    """A file that gives every weight the same recipe.

    Attributes:
        weights: bytes by initializer name.
        rest: bytes of all else.
    """

    weights: Mapping[str, int]
    rest: int


def recipe_sizes(model: Model, recipe: Recipe, effort: str) -> RecipeSizes:
    """The bytes that a recipe takes in each weight of a model, and what else the file holds.

    Args:
        model: the prepared float model.
        recipe: that every weight gets, small ones too.
        effort: that codes are chosen with.
    """
    content = to_onnx(weighed(model, plan(model, recipe, rules=lambda layer: recipe, effort=effort)))
    of_nodes = bytes_by_weight(content)
    weights: dict[str, int] = {}
    for user in all_weights(model):
        weights[user.weight] = weights.get(user.weight, 0) + of_nodes.pop(user.node, 0)
    return RecipeSizes(weights, len(content) - sum(weights.values()))


def weighed(model: Model, decision: Plan) -> QuantizedGraph:
    """What a plan's file will be, but for what codes and scales say."""
    widest = EFFORTS[decision.effort].widest
    codes = {tensor.tensor: _codes(model, tensor, widest) for tensor in decision.quantized}
    coarse = {tensor.tensor for tensor in decision.quantized if tensor.given and tensor.given.bits <= HALF_BITS}
    readers = [layer for layer in layers(model) if layer.weight in coarse & decision.decoded]
    floats = {layer.bias: narrow_bias(model.weights[layer.bias]) for layer in readers if layer.bias is not None}
    if not decision.integer:
        return assembled(model, decision, codes, floats, None)
    kind = decision.activations
    steps = {name: ActivationCodes(STEP, 0, kind) for group in decision.scale_groups for name in group}
    return assembled(model, decision, codes, floats, Statistics({}, 0, ""), activations=steps)


def _codes(model: Model, tensor: TensorPlan, widest: int) -> Codes:
    """Codes of the right size for a tensor; those of two tensors differ, since a file stores equal constants once."""
    scheme, weight = tensor.given, model.weights[tensor.tensor]
    assert scheme is not None
    if not isinstance(scheme, Clusters | IntegerClusters):
        codes = scheme.encode(weight, tensor.axis)
        # Rounding leaves codes that it does not search for on the scales that they have.
        return codes if scheme.bits > widest else with_narrow_scales(codes, weight)
    random = np.random.default_rng(zlib.crc32(tensor.tensor.encode()))
    levels = 1 << scheme.bits
    indices = random.integers(0, levels, tensor.shape, np.uint8)
    if isinstance(scheme, IntegerClusters):
        books = np.sort(random.choice(2 * scheme.largest, levels, replace=False) - scheme.largest)[None].astype(
            np.float32
        )
    else:
        count = scheme.blocks(tensor.shape, tensor.axis).count
        books = np.sort(random.normal(size=(count, levels)), axis=1)
    scaled = isinstance(scheme, IntegerClusters) or scheme.scaled
    scale = random.uniform(0.5, 1.0, tensor.shape[tensor.axis]).astype(np.float16).astype(np.float32)
    return scheme.from_indices(indices, books, scale=scale if scaled else None, axis=tensor.axis)

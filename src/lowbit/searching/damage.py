"""What each recipe in each layer will cost the network: predicted from one pass of the moments.

For a layer with weights W and second moments H of its inputs, a recipe leaves the output error

    D = tr((W - Q) H (W - Q)^T)

and D times the layer's sensitivity (`passes.sensitivity`) is what the network is forecast to lose; layers add up. Codes
are solved as rounding will solve them, on a sample of rows and for a few widths; between those the logarithm of D is
interpolated, since a bit divides D by four wherever it was measured (by 2.9 to 5 on ResNet20). Rounded activations add
noise of their own: step^2 / 12 for each input of a product.

The forecast ranks whole networks (Spearman 0.99 over mixtures of ResNet20); its level is corrected by what measured
files lose (`searching.correction`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lowbit.calibration.moments import Moments
from lowbit.data.dataset import Dataset
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.processor import cores, single_thread_blas
from lowbit.progress import SILENT, Progress
from lowbit.quantization.passes.layerwise import WIDEST, LayerwisePass
from lowbit.quantization.passes.sensitivity import Rest, Test, combined, tested
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.layer import aim
from lowbit.quantization.solving.problem import Problem, objective
from lowbit.quantization.solving.ridge import TYPICAL_BITS
from lowbit.quantization.solving.schemes import row_of

ROWS = 48  # of each group of a layer that codes are solved for
EFFORT = "fast"
# Widths that are solved for; linear grids of up to 4 bits have zero points, and are a family of their own.
SOLVED = {"linear": (2, 4, 5, 8), "cluster": (1, 2, 4, 6), "int": (2, 4, 8), "icluster": (1, 2, 4, 6)}
PER_BIT = math.log(4)  # by which the logarithm of D falls from bit to bit beyond the widths that are solved for
SPREAD = 4.0  # standard deviations on either side of its mean that the range of an activation reaches
LEAST = 1e-30
MOST_JUDGING = 256  # samples that show what errors cost

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class LayerDamage:
    """The forecast of one layer.

    Attributes:
        node: its name.
        weight: its initializer.
        network: what one unit of output error costs at the network's output, in nats of KL or relative error, as the
            network showed; see `passes.sensitivity` for both estimates.
        relative: the same, if every layer may lose the same share of its output.
        errors: output error by recipe, its activations as they are.
        activation_error: output error of inputs that are rounded to 256 levels.
    """

    node: str
    weight: str
    network: float
    relative: float
    errors: Mapping[str, float]
    activation_error: float

    def error(self, recipe: Recipe) -> float:
        """Output error that a recipe leaves."""
        if recipe.weights is None:
            return 0.0
        rounded = self.activation_error * 4.0 ** (8 - recipe.activations.bits) if recipe.integer else 0.0
        return self.errors[recipe.name] + rounded

    def cost(self, tilt: float = 0.0) -> float:
        """What one unit of output error costs: the geometric mean of both estimates, or towards one of them.

        Args:
            tilt: 1 takes the network's, -1 the relative one.
        """
        return float(self.network ** ((1 + tilt) / 2) * self.relative ** ((1 - tilt) / 2))


@single_thread_blas()
def layer_damages(
    model: Model,
    data: Dataset,
    judging: Dataset,
    recipes: Mapping[str, Recipe],
    *,
    threads: int = 0,
    progress: Progress = SILENT,
) -> tuple[LayerDamage, ...]:
    """The forecast of every layer that has second moments, in execution order.

    Args:
        model: the prepared float model.
        data: calibration samples, in runs of the model; labels are not used.
        judging: samples on which it shows what a layer's errors cost the network: those that candidates are measured on,
            since a network is surer of samples that it was trained on.
        recipes: by name, those that layers may get.
        threads: that share the samples; 0 takes as many as there are cores.
        progress: told after every layer.
    """
    first_reader: dict[str, Layer] = {}
    for layer in layers(model):
        first_reader.setdefault(layer.weight, layer)
    nodes = [layer.node for layer in first_reader.values() if layer.columns <= WIDEST]
    rest = Rest(model, judging, threads or cores(), most=MOST_JUDGING)
    run = LayerwisePass(model, data, nodes, EFFORTS[EFFORT], threads=threads)
    tests: dict[str, Test] = {}
    errors: dict[str, tuple[str, dict[str, float], float]] = {}
    for layer, moments in progress.track(run, "forecasting damage", total=len(run)):
        weight = np.asarray(model.weights[layer.weight], np.float64)
        tests[layer.node] = tested(layer, weight, moments, rest)
        errors[layer.node] = (layer.weight, *_errors(layer, weight, moments, recipes))
    costs = combined(model, tests)
    found = []
    for node, (name, by_recipe, activations) in errors.items():
        cost = costs[node].cost
        network = tests[node].network_cost or cost
        found.append(LayerDamage(node, name, network, cost**2 / network, by_recipe, activations))
    return tuple(found)


def _errors(
    layer: Layer, weight: Array, moments: Moments, recipes: Mapping[str, Recipe]
) -> tuple[dict[str, float], float]:
    """Output error of each recipe, and of inputs rounded to 256 levels, in units of the layer's output power."""
    matrix = layer.to_matrix(weight)
    variance = np.einsum("gkk->gk", moments.second).astype(np.float64)
    step = 2 * SPREAD * math.sqrt(float(variance.mean())) / 255
    activations = step**2 / 12 * float(np.square(matrix).sum())
    diagonal = np.einsum("gkk->gk", moments.second).copy()
    target, second = aim(matrix, moments, TYPICAL_BITS)
    rows = slice(None, None, max(1, -(-matrix.shape[1] // ROWS)))
    target, trained = target[:, rows], matrix[:, rows]
    problem = Problem.of(target, second)
    np.einsum("gkk->gk", moments.second)[...] = diagonal
    share = matrix.shape[1] / target.shape[1]
    groups, count, columns = target.shape
    sample = replace(
        layer, op="Gemm" if layer.geometry is None else "Conv", weight_shape=(groups * count, columns), channel_axis=0
    )

    def lost(recipe: Recipe) -> float:
        row = row_of(recipe.weights) if recipe.weights is not None else None
        if row is None or recipe.weights is None:
            return 0.0
        if row.solve is None:
            rounded = recipe.weights.encode(target.astype(np.float32), 1).decode()
        else:
            solution: Any = row.solve(problem, recipe.weights, EFFORTS[EFFORT])
            rounded = solution.to_codes(sample, recipe.weights).decode().reshape(target.shape)
        # The solver's own error counts the ridge too, which is many times the output of a layer whose inputs are small.
        return float(share * objective(trained, rounded, moments.second).sum())

    known: dict[str, float] = {}
    for name, recipe in recipes.items():
        family = family_of(name)
        if family not in SOLVED:
            known[name] = lost(recipe)
    for family, most in SOLVED.items():
        names = [name for name in recipes if family_of(name) == family]
        asked = sorted({recipes[name].bits for name in names})
        widths = most if len(asked) > len(most) else asked
        solved = {bits: max(LEAST, lost(parse_recipe(f"{family}{bits}"))) for bits in widths}
        known |= {name: _between(solved, recipes[name].bits) for name in names}
    return known, activations


def family_of(name: str) -> str:
    """Family of a recipe whose widths are interpolated; 16-bit activations do not change what weights lose."""
    family = name.rstrip("0123456789") if not name.startswith("a16w") else "int"
    return "half" if name.startswith(("float16", "bfloat16")) else family


def _between(solved: Mapping[int, float], bits: int) -> float:
    """The error at a width, from those of others: linear in its logarithm between them, a quarter per bit beyond."""
    if bits in solved:
        return solved[bits]
    below = [width for width in solved if width < bits]
    above = [width for width in solved if width > bits]
    if not above or not below:
        end = max(below) if below else min(above)
        return float(solved[end] * math.exp(-PER_BIT * (bits - end)))
    low, high = max(below), min(above)
    slope = math.log(solved[high] / solved[low]) / (high - low)
    return float(solved[low] * math.exp(slope * (bits - low)))

"""What each recipe in each layer will cost the network: predicted from one pass of the moments.

For a layer with weights W and second moments H of its inputs, a recipe leaves the output error

    D = tr((W - Q) H (W - Q)^T)

Codes are solved as rounding will solve them, on a sample of rows and for a few widths; between those the logarithm of D
is interpolated, since a bit divides D by four wherever it was measured (by 2.9 to 5 on ResNet20). Rounded activations
add noise of their own: step^2 / 12 for each input of a product.

What D costs the network is measured with codes of several widths, each layer alone (`searching.costs`), on calibration
samples that no codes were fitted to: a layer of a thousand inputs that is seen once a sample fits those that it saw. A
classifier's logits are softened, for it is sure of the samples that it was trained on. Layers add up. The level is
corrected by what measured files lose (`searching.correction`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lowbit.calibration.batches import samples_per_run
from lowbit.calibration.moments import Moments
from lowbit.data.dataset import Dataset
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.processor import cores, single_thread_blas
from lowbit.progress import SILENT, Progress
from lowbit.quantization.passes.layerwise import WIDEST, LayerwisePass
from lowbit.quantization.passes.sensitivity import LEAST_DISTANCE, Rest
from lowbit.quantization.passes.validation import fitting_and_judging
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.layer import aim
from lowbit.quantization.solving.problem import Problem, objective
from lowbit.quantization.solving.refit import refit_bias
from lowbit.quantization.solving.ridge import TYPICAL_BITS
from lowbit.quantization.solving.schemes import row_of
from lowbit.searching.costs import Cost, fitted_costs

ROWS = 48  # of each group of a layer that codes are solved for
EFFORT = "fast"
# Widths that are solved for; linear grids of up to 4 bits have zero points, and are a family of their own.
SOLVED = {"linear": (2, 4, 5, 8), "cluster": (1, 2, 4, 6), "int": (2, 4, 8), "icluster": (1, 2, 4, 6)}
SHOWN = ("linear2", "linear3", "linear4", "linear5")  # whose codes show what errors cost
PER_BIT = math.log(4)  # by which the logarithm of D falls from bit to bit beyond the widths that are solved for
SPREAD = 4.0  # standard deviations on either side of its mean that the range of an activation reaches
LEAST = 1e-30
GROUPS = 2  # of the samples that tests run on
FEWEST_SHOWING = 8  # samples of a group; where there are fewer, all tests share them

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class LayerDamage:
    """The forecast of one layer.

    Attributes:
        node: its name.
        weight: its initializer.
        cost: of its output error.
        errors: output error by recipe, its activations as they are.
        activation_error: output error of inputs that are rounded to 256 levels.
    """

    node: str
    weight: str
    cost: Cost
    errors: Mapping[str, float]
    activation_error: float

    def error(self, recipe: Recipe) -> float:
        """Output error that a recipe leaves."""
        if recipe.weights is None:
            return 0.0
        rounded = self.activation_error * 4.0 ** (8 - recipe.activations.bits) if recipe.integer else 0.0
        return self.errors[recipe.name] + rounded


@single_thread_blas()
def layer_damages(
    model: Model,
    data: Dataset,
    recipes: Mapping[str, Recipe],
    *,
    threads: int = 0,
    progress: Progress = SILENT,
) -> tuple[LayerDamage, ...]:
    """The forecast of every layer that has second moments, in execution order.

    Args:
        model: the prepared float model.
        data: calibration samples, in runs of the model; labels are not used.
        recipes: by name, those that layers may get.
        threads: that share the samples; 0 takes as many as there are cores.
        progress: told after every layer.
    """
    first_reader: dict[str, Layer] = {}
    for layer in layers(model):
        first_reader.setdefault(layer.weight, layer)
    nodes = [layer.node for layer in first_reader.values() if layer.columns <= WIDEST]
    fitting, judging = fitting_and_judging(model, data)
    groups = [Rest(model, part, threads or cores(), softened=True) for part in _groups(model, judging)]
    rests = [groups[place % len(groups)] for place in range(len(SHOWN))]
    run = LayerwisePass(model, fitting, nodes, EFFORTS[EFFORT], threads=threads)
    shown: dict[str, list[tuple[float, float]]] = {}
    powers: dict[str, float] = {}
    errors: dict[str, tuple[Mapping[str, float], float]] = {}
    for layer, moments in progress.track(run, "forecasting damage", total=len(run)):
        solver = _Solver(layer, np.asarray(model.weights[layer.weight], np.float64), moments)
        shown[layer.node] = [solver.shown(parse_recipe(name), rest) for name, rest in zip(SHOWN, rests, strict=True)]
        powers[layer.node] = solver.power
        known = {name: error for name, (error, _) in zip(SHOWN, shown[layer.node], strict=True)}
        errors[layer.node] = solver.errors(recipes, known), solver.activation_error
    costs = fitted_costs(shown, powers)
    weights = {layer.node: layer.weight for layer in first_reader.values()}
    return tuple(LayerDamage(node, weights[node], costs[node], *errors[node]) for node in shown)


def _groups(model: Model, data: Dataset) -> list[Dataset]:
    """Samples for tests, in groups where there are enough."""
    batch = samples_per_run(model, data) or 1
    count = data.count // GROUPS // batch * batch
    return [data] if count < FEWEST_SHOWING else list(data.apart(count))


class _Solver:
    """Codes of one layer, as rounding will solve them, and the output errors that they leave.

    Args:
        layer: with its weight.
        weight: trained values.
        moments: of its inputs.
    """

    def __init__(self, layer: Layer, weight: Array, moments: Moments) -> None:
        self.layer, self.moments = layer, moments
        self.trained = layer.to_matrix(weight)
        self.power = float(objective(self.trained, 0.0, moments.second).sum())
        variance = np.einsum("gkk->gk", moments.second).astype(np.float64)
        step = 2 * SPREAD * math.sqrt(float(variance.mean())) / 255
        self.activation_error = step**2 / 12 * float(np.square(self.trained).sum())
        diagonal = np.einsum("gkk->gk", moments.second).copy()
        self._target, second = aim(self.trained, moments, TYPICAL_BITS)
        every = slice(None, None, max(1, -(-self.trained.shape[1] // ROWS)))
        self._sample = self.trained[:, every], self._target[:, every]
        self._problems = Problem.of(self._target, second), Problem.of(self._sample[1], second)
        np.einsum("gkk->gk", moments.second)[...] = diagonal

    def shown(self, recipe: Recipe, rest: Rest) -> tuple[float, float]:
        """The output error of codes for the whole layer, and what the network loses by them alone."""
        rounded = self._rounded(recipe, self._target, self._problems[0])
        values = {self.layer.weight: self.layer.from_matrix(rounded.astype(np.float32))}
        if self.layer.bias is not None:
            bias = refit_bias(rounded.astype(np.float64), self.moments)
            values[self.layer.bias] = bias.reshape(rest.model.weights[self.layer.bias].shape).astype(np.float32)
        error = float(objective(self.trained, rounded, self.moments.second).sum())
        return max(LEAST, error), max(LEAST_DISTANCE, rest.distance_with(self.layer, values))

    def errors(self, recipes: Mapping[str, Recipe], shown: Mapping[str, float]) -> dict[str, float]:
        """Output error of each recipe, its activations as they are; of those that tests have shown it is known."""
        known: dict[str, float] = {}
        for name, recipe in recipes.items():
            family = family_of(name)
            if family not in SOLVED:
                known[name] = self._lost(recipe)
        for family, most in SOLVED.items():
            names = [name for name in recipes if family_of(name) == family]
            asked = sorted({recipes[name].bits for name in names})
            widths = most if len(asked) > len(most) else asked
            solved = {recipes[name].bits: shown[name] for name in names if name in shown}
            rest = [parse_recipe(f"{family}{bits}") for bits in widths if bits not in solved]
            solved |= {recipe.bits: max(LEAST, self._lost(recipe)) for recipe in rest}
            known |= {name: _between(solved, recipes[name].bits) for name in names}
        return known

    def _lost(self, recipe: Recipe) -> float:
        """Output error of a recipe, by a sample of rows."""
        if recipe.weights is None or row_of(recipe.weights) is None:
            return 0.0
        trained, target = self._sample
        rounded = self._rounded(recipe, target, self._problems[1])
        # The solver's own error counts the ridge too, which is many times the output of a layer whose inputs are small.
        share = self.trained.shape[1] / target.shape[1]
        return float(share * objective(trained, rounded, self.moments.second).sum())

    def _rounded(self, recipe: Recipe, target: Array, problem: Problem) -> Array:
        """Rows as a recipe for which there is a solver decodes them [groups, rows, columns]."""
        scheme: Any = recipe.weights
        row: Any = row_of(scheme)
        if row.solve is None:
            return np.asarray(scheme.encode(target.astype(np.float32), 1).decode())
        groups, count, columns = target.shape
        op = "Gemm" if self.layer.geometry is None else "Conv"
        flat = replace(self.layer, op=op, weight_shape=(groups * count, columns), channel_axis=0)
        solution: Any = row.solve(problem, scheme, EFFORTS[EFFORT])
        return np.asarray(solution.to_codes(flat, scheme).decode().reshape(target.shape))


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

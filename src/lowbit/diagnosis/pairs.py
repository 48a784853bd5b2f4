"""Tensors of two files that correspond: matched by name, or where tools have renamed them by order and value.

A sound file may hold other numbers than the float model. Equalization gives channels other factors, which the weights
behind make up for; zero points may have gone into biases, so that a whole tensor is moved, which the biases behind make
up for. Both is taken back before tensors are compared, where what is behind does make up for it.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lowbit.calibration.answers import relative_error
from lowbit.diagnosis.findings import TensorRow
from lowbit.diagnosis.layers import activated, readers_of
from lowbit.diagnosis.weights import WeightLoss
from lowbit.engines import open_session
from lowbit.errors import ModelError
from lowbit.formats.onnx.inner_tensors import READ
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.graph.subgraph import Subgraphs

# What tools put behind, or in front of, the names of tensors.
DECORATION = re.compile(
    rf"^({re.escape(READ)}|dq_output_|q_output_)|(_DequantizeLinear_Output|_QuantizeLinear_Output|_dequantized|_quantized)$"
)
NEAR = 0.3  # relative error up to which a tensor is taken for the same
RESCALED = 0.5  # share of a layer's weight error that is left where factors of rows and columns make up for the rest
CLOSER = 0.5  # share of a tensor's error that is left where it may have been moved
ALIKE = 0.1  # where it surely has been
NOTHING = 1e-12

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = Mapping[str, Array]


@dataclass(frozen=True)
class Pair:
    """Tensors of two files, and which of them correspond.

    Attributes:
        model: the float model.
        wanted: its tensors, by name, [samples, ...].
        inside: all of the other file, by name.
        ordered: those of them that are floats, in execution order.
        losses: what became of layers' weights, by node.
        size: samples of a run.
        matches: for each float tensor the other one, and how it was found; filled as layers are looked at.
    """

    model: Model
    wanted: Tensors
    inside: Tensors
    ordered: Sequence[tuple[str, Array]]
    losses: Mapping[str, WeightLoss]
    size: int
    matches: dict[str, tuple[str, str] | None] = field(default_factory=dict)

    def row(self, layer: Layer) -> TensorRow:
        """One layer."""
        outputs, loss = outputs_of(self.model, layer), self.losses.get(layer.node)
        tensor = next((name for name in outputs if self._match(name)), layer.output)
        if loss is not None and (self._equalized(tensor) or self._equalized(layer.input)):
            loss = loss.rescaled
        row = TensorRow(layer.node, tensor, weight_error=None if loss is None else loss.error)
        if (match := self._match(tensor)) is None:
            return row
        result, given = self._given(tensor), None
        if any(info.name == layer.input for info in self.model.inputs):
            given = self.wanted[layer.input]
        elif self._match(layer.input):
            given = self._given(layer.input)
        made = None if given is None else self._made(layer.input, tensor, given)
        return dataclasses.replace(
            row,
            other=match[0],
            matched=match[1],
            error=error_of(self.wanted[tensor], result),
            added=None if made is None else error_of(made, result),
        )

    def _match(self, tensor: str) -> tuple[str, str] | None:
        """The tensor of the other file, and how it was found."""
        if tensor not in self.matches:
            known = tensor in self.wanted
            self.matches[tensor] = _match(tensor, self.wanted[tensor], self.ordered) if known else None
        return self.matches[tensor]

    def _given(self, tensor: str) -> Array:
        """What the other file has for a tensor, its channels scaled and moved back where others make up for that."""
        match = self._match(tensor)
        assert match is not None
        wanted, given = self.wanted[tensor], self.inside[match[0]]
        factors = self._equalized(tensor)
        plain, moved = _back(wanted, given, factors, move=False), _back(wanted, given, factors, move=True)
        closer = error_of(wanted, moved) / max(error_of(wanted, plain), NOTHING)
        return moved if closer < CLOSER and self._is_moved(tensor, plain, moved, closer) else plain

    def _is_moved(self, tensor: str, plain: Array, moved: Array, closer: float) -> bool:
        """Whether what a layer gives shows that it reads the tensor as moved; sums of others make up for it unseen."""
        for layer in layers(self.model):
            output = next((name for name in outputs_of(self.model, layer) if self._match(name)), None)
            if layer.input != tensor or output is None:
                continue
            match, factors = self._match(output), self._equalized(output)
            made = [self._made(tensor, output, each) for each in (plain, moved)]
            if match is not None and made[0] is not None and made[1] is not None:
                result = self.inside[match[0]]
                errors = [error_of(y, _back(y, result, factors, move=True)) for y in made if y is not None]
                return errors[1] < errors[0]
        return closer < ALIKE

    def _equalized(self, tensor: str) -> bool:
        """Whether weights of a layer that a tensor comes to make up for its factors.

        Depthwise layers pass factors on, with the same weights.
        """
        pending, seen = [tensor], {tensor}
        while pending:
            for reader in readers_of(self.model, pending.pop()):
                if reader.node in self._rescaled:
                    return True
                if reader.depthwise and reader.output not in seen:
                    seen.add(reader.output)
                    pending.append(reader.output)
        return False

    @cached_property
    def _rescaled(self) -> frozenset[str]:
        """Layers whose weights are the float ones but for factors of rows and columns."""
        return frozenset(node for node, loss in self.losses.items() if loss.scaled < RESCALED * loss.error)

    def _made(self, source: str, tensor: str, given: Array) -> Array | None:
        """What the float layers make of the other file's tensor; None where they need others too."""
        try:
            piece, names = Subgraphs(self.model).extract([source], [tensor], weights={})
        except ModelError:
            return None
        session = open_session(piece, threads=1)
        starts = range(0, len(given), self.size)
        made = [session.run({names[0]: given[start : start + self.size]})[tensor] for start in starts]
        return np.concatenate(made)


def outputs_of(model: Model, layer: Layer) -> tuple[str, ...]:
    """What others read of a layer, and its output itself where an activation function stands between."""
    return tuple(dict.fromkeys((activated(model, layer), layer.output)))


def error_of(wanted: Array, given: Array) -> float:
    """Relative error in the mean over the samples that both have; 1 of tensors that cannot be compared."""
    count = min(len(wanted), len(given))
    if not count or wanted.shape[1:] != given.shape[1:]:
        return 1.0
    error = float(relative_error(np.asarray(wanted[:count], np.float32), np.asarray(given[:count], np.float32)).mean())
    return error if np.isfinite(error) else 1e9


def _match(tensor: str, wanted: Array, ordered: Sequence[tuple[str, Array]]) -> tuple[str, str] | None:
    """The tensor of the other file that a float one corresponds to, and how it was found."""
    fitting = [(name, error_of(wanted, value)) for name, value in ordered if value.shape[1:] == wanted.shape[1:]]
    named = [(name, error) for name, error in fitting if DECORATION.sub("", name) == tensor]
    # The last of one name is what others read: rounded, and behind what was fused.
    if named and (named[-1][1] <= NEAR or min(error for _, error in fitting) > NEAR):
        return named[-1][0], "name"
    name, error = min(fitting, key=lambda one: one[1], default=("", 1.0))
    if error <= NEAR:
        return name, "value"
    return None


def _back(wanted: Array, given: Array, factors: bool, *, move: bool) -> Array:
    """The given tensor closest to the wanted one, with a factor for each channel (axis 1), and moved by one number."""
    count = min(len(wanted), len(given))
    if given.ndim < 2 or wanted.shape[1:] != given.shape[1:] or not count:
        return given
    axes = tuple(axis for axis in range(given.ndim) if axis != 1)
    w, g = np.asarray(wanted[:count], np.float64), np.asarray(given[:count], np.float64)
    means = [each.mean(axis=axes, keepdims=True) for each in (w, g)]
    by = 0.0
    if move:
        slope = _slope(w - means[0], g - means[1], axes) if factors else 1.0
        by = float(np.median(means[1] - means[0] / slope))
    return np.asarray((given - by) * (_slope(w, g - by, axes) if factors else 1.0), given.dtype)


def _slope(wanted: Array, given: Array, axes: tuple[int, ...]) -> Array:
    """By how much each channel has to be multiplied to come closest; 1 where nothing positive does."""
    both, power = (np.sum(given * each, axis=axes, keepdims=True) for each in (wanted, given))
    return np.where((both > 0) & (power > NOTHING), both / np.maximum(power, NOTHING), 1.0)

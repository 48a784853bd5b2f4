"""Weights of two files side by side: how much of the float ones a file of any tool still holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers

Array = np.ndarray[Any, np.dtype[Any]]
Doubles = npt.NDArray[np.float64]
# What tools put behind the names of nodes.
SUFFIX = re.compile(r"(_quant|_quantized|_Quant|/quantized|_int8)$")
ROUNDS = 3
NOTHING = 1e-12
WORST = 0.5  # share of a channel's power that is lost where the channel counts as broken
COUNTS = 0.02  # of the power of a mean channel, from which a channel is looked at


@dataclass(frozen=True)
class WeightLoss:
    """What became of a layer's weights.

    Attributes:
        error: squared error over their power.
        scaled: the same once rows and columns are rescaled to fit, as equalization does.
        channels: numbers of the output channels that are lost, where most others are not.
        scaled_channels: those that are lost even so.
    """

    error: float
    scaled: float
    channels: tuple[int, ...] = ()
    scaled_channels: tuple[int, ...] = ()

    @property
    def rescaled(self) -> "WeightLoss":
        """What is lost beside factors of rows and columns."""
        return WeightLoss(min(self.error, self.scaled), self.scaled, self.scaled_channels, self.scaled_channels)


def weight_losses(model: Model, raw: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, WeightLoss]:
    """By node of the float model; layers whose weights are not found in the other file are left out.

    Args:
        model: the prepared float model, with its batch norms folded.
        raw: weights of the float file as it stands, by node.
        other: weights of the other file, by node.
    """
    named = {SUFFIX.sub("", name): value for name, value in other.items()} | dict(other)
    left = dict(other)
    losses = {}
    for layer in layers(model):
        weight = model.weights[layer.weight]
        given = named.get(layer.node)
        if given is None or sorted(given.shape) != sorted(weight.shape):
            given = next((value for value in left.values() if value.shape == weight.shape), None)
        if given is None:
            continue
        left = {name: value for name, value in left.items() if value is not given}
        wanted = [weight, *([raw[layer.node]] if layer.node in raw else [])]
        found = [_loss(layer, each, given) for each in wanted if sorted(each.shape) == sorted(given.shape)]
        if found:
            losses[layer.node] = min(found, key=lambda loss: loss.error)
    return losses


def _loss(layer: Layer, wanted: Array, given: Array) -> WeightLoss:
    turns = [given] if wanted.ndim != 2 or given.shape != wanted.shape[::-1] else [given.T, given]
    return min(
        (_of_matrix(_rows(layer, wanted), _rows(layer, each)) for each in turns if each.shape == wanted.shape),
        key=lambda loss: loss.error,
    )


def _rows(layer: Layer, weight: Array) -> Doubles:
    """[output channels, columns]."""
    if weight.shape != layer.weight_shape:  # of a file that has it turned
        return weight.reshape(len(weight), -1).astype(np.float64)
    return layer.to_matrix(weight.astype(np.float64)).reshape(layer.out_channels, -1)


def _of_matrix(wanted: Doubles, given: Doubles) -> WeightLoss:
    error, channels = _lost(wanted, given)
    scaled, scaled_channels = _lost(wanted, _rescaled(wanted, given))
    return WeightLoss(error, scaled, channels, scaled_channels)


def _lost(wanted: Doubles, given: Doubles) -> tuple[float, tuple[int, ...]]:
    """The share of the power that is lost, and the channels of which most is."""
    powers = np.square(wanted).sum(axis=1)
    lost = np.square(wanted - given).sum(axis=1)
    counting = powers > COUNTS * powers.mean()
    broken = np.flatnonzero(counting & (lost / np.maximum(powers, NOTHING) > WORST))
    few = len(broken) <= np.count_nonzero(counting) // 2
    return float(lost.sum() / max(powers.sum(), NOTHING)), tuple(int(channel) for channel in broken) if few else ()


def _rescaled(wanted: Doubles, given: Doubles) -> Doubles:
    """The given weights, each row and each column multiplied by the median ratio."""
    usable = (wanted * given > 0) & (np.abs(wanted) > 1e-3 * np.abs(wanted).max(initial=0.0))
    if not usable.any():
        return given
    logs = np.where(usable, np.log(np.where(usable, wanted / np.where(given == 0, 1, given), 1)), np.nan)
    fit = np.zeros_like(logs)
    with np.errstate(all="ignore"):
        for _ in range(ROUNDS):
            for axis in (1, 0):
                fit += np.nan_to_num(_medians(logs - fit, axis))
    return np.asarray(given * np.exp(fit))


def _medians(values: Doubles, axis: int) -> Doubles:
    """Medians of what is a number; 0 where nothing is."""
    known = ~np.isnan(values).all(axis=axis, keepdims=True)
    filled = np.where(known, values, 0.0)
    return np.asarray(np.nanmedian(filled, axis=axis, keepdims=True))

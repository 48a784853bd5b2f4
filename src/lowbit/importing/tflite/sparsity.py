"""Constants of .tflite files that leave out zeros.

What is stored is a tree with a level for each dimension, in an order of its own; where zeros are left out by blocks,
one more level for each dimension of a block. Below each entry of a level stand all indices of the next, or those that a
list names. The leaves are the values.

Source: the comments of `SparsityParameters` in the TensorFlow Lite schema, version 3.
"""

import math

import numpy as np

from lowbit.engines.litert_reader import Options
from lowbit.importing.imported import Array

# Field numbers, in the order of the schema.
SPARSITY = {"order": 0, "blocks": 1, "levels": 2}
LEVEL = {"listed": 0, "size": 1, "bounds": 3, "indices": 5}  # in front of each of the last two stands its type
VECTORS = {1: "<i4", 2: "<u2", 3: "<u1"}


def with_zeros(values: Array, shape: tuple[int, ...], sparsity: Options) -> Array:
    """The whole tensor [shape] of the values that were stored, in the order of the tree's leaves.

    Raises:
        ValueError: the tree does not fit the shape or the values.
    """
    order, blocks = sparsity.numbers(SPARSITY["order"]), sparsity.numbers(SPARSITY["blocks"])
    levels = sparsity.tables(SPARSITY["levels"])
    rank = len(shape)
    if sorted(order) != list(range(rank + len(blocks))) or len(levels) != len(order):
        raise ValueError("a sparse tensor's levels are not its dimensions")
    count, size = 1, {}
    at: dict[int, Array] = {}  # index along each dimension, of all entries of the level
    for dimension, level in zip(order, levels, strict=True):
        size[dimension] = int(level.number(LEVEL["size"], "i"))
        parents, at_this = _entries(level, count, math.prod(shape))
        at = {known: indices[parents] for known, indices in at.items()} | {dimension: at_this}
        count = at_this.size
    if count != values.size:
        raise ValueError(f"a sparse tensor has {values.size} values, and places for {count}")
    for extra, dimension in enumerate(blocks, start=rank):
        at[dimension] = at[dimension] * size[extra] + at[extra]
    whole = np.zeros(shape, values.dtype)
    if any(
        indices.size and not 0 <= indices.min() <= indices.max() < shape[axis]
        for axis, indices in at.items()
        if axis < rank
    ):
        raise ValueError(f"a sparse tensor of shape {list(shape)} has values outside of it")
    whole[tuple(at[axis] for axis in range(rank))] = values
    return whole


def _entries(level: Options, count: int, most: int) -> tuple[Array, Array]:
    """The entries of a level below `count` of the level above: which of those each is below, and its index."""
    if level.number(LEVEL["listed"], "b"):
        bounds, indices = _vector(level, LEVEL["bounds"]), _vector(level, LEVEL["indices"])
        lengths = np.diff(bounds)
        if bounds.size != count + 1 or bounds[0] or bounds[-1] != indices.size or lengths.min() < 0:
            raise ValueError("a sparse tensor's lists do not fit its levels")
        return np.repeat(np.arange(count), lengths), indices
    size = int(level.number(LEVEL["size"], "i"))
    if size < 0 or size * count > most:
        raise ValueError("a sparse tensor has more places than its shape")
    return np.repeat(np.arange(count), size), np.tile(np.arange(size), count)


def _vector(level: Options, field: int) -> Array:
    kind = int(level.number(field - 1, "b"))
    if kind not in VECTORS:
        raise ValueError("a sparse tensor's lists are missing")
    return level.table(field).vector(0, VECTORS[kind]).astype(np.int64)

"""Levels of code books: the nearest one, however many values are looked up at once."""

import numpy as np
import pytest

from lowbit.quantization.solving.grids import BookGrid

FEW, MANY = 60, 20_000


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("levels", [2, 16, 256])
def test_few_values_and_many_find_the_same_levels(levels, scaled):
    generator = np.random.default_rng(levels)
    books = np.sort(generator.standard_normal((1, 1, levels)), axis=2).astype(np.float32)
    scale = generator.uniform(0.5, 2, (1, 4)).astype(np.float32) if scaled else None
    grid = BookGrid(books, scale)
    values = generator.standard_normal((1, 4, MANY)).astype(np.float32)
    together = grid.codes(values)
    for start in range(0, MANY, FEW // 4):
        part = slice(start, start + FEW // 4)
        assert np.array_equal(grid.codes(values[:, :, part]), together[:, :, part])
    distance = np.abs(values[..., None] / (1 if scale is None else scale[..., None, None]) - books[:, :, None])
    chosen = np.take_along_axis(distance, together[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, distance.min(axis=-1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [3, MANY])
@pytest.mark.parametrize("rows", [1, 2])
def test_halfway_between_two_levels_the_lower_one_is_taken(count, rows):
    books = np.tile(np.array([-1, 0, 1, 3], np.float32), (1, rows, 1))
    values = np.tile(np.array([-0.5, 0.5, 2.0], np.float32), (1, rows, count))
    assert np.array_equal(BookGrid(books).codes(values), np.tile([0, 1, 2], (1, rows, count)))

"""Clusters on the layer's objective: code books and indices chosen together.

k-means minimises the squared error of the weights; here it is `sum over rows of (w - q)^T H (w - q)`, q_j = book[i_j].
Beginning from k-means weighted with the diagonal of H, two steps alternate:

- books fixed: indices by GPTQ and coordinate descent (`lowbit.quantization.solving.gptq`), kernels of few
  columns exactly (`lowbit.quantization.solving.closest_vector`);
- indices fixed: the books are a linear least-squares problem. With A the 0/1 matrix that spreads a book over a row,
  `(sum A^T H A) book = sum A^T H w`, solved by conjugate gradients: a product with the matrix is a look-up, a product
  with H and a sum per index, so that nothing larger than the weights is ever built.

Where channels have scales, levels are `scale * book`: the books are solved for the scaled rows, and between the steps
each scale is the best one for its row's indices, `w^T H u / u^T H u` with u = book[i].

Only what lowers the objective is kept. With H = I this is k-means (Lloyd's two steps). Gives up: the global optimum.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowbit.graph.ops import Layer
from lowbit.processor import cores, in_order
from lowbit.quantization.solving.closest_vector import closest
from lowbit.quantization.solving.effort import Effort
from lowbit.quantization.solving.gptq import coordinate_descent, gptq
from lowbit.quantization.solving.grids import BookGrid
from lowbit.quantization.solving.linear import EXACT_COLUMNS, EXACT_LEVELS, PART_CELLS, TWO_PARTS_FROM
from lowbit.quantization.solving.problem import Floats, Problem, Single, objective
from lowbit.quantization.solving.stored_scales import stored_scales
from lowbit.schemes.clusters import ClusterCodes, Clusters
from lowbit.schemes.integer_clusters import IntegerClusterCodes, IntegerClusters
from lowbit.schemes.kmeans import fit_1d, fit_rows

CG_ITERATIONS = 30
SMALLEST = np.float32(1e-30)
RIDGE = 1e-6  # pulls entries that no weight uses, or that only others can tell apart, to where they are

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClusterSolution:
    """Indices and code books of a layer.

    Attributes:
        codes: indices [groups, rows, columns].
        books: ascending [books, levels].
        scale: [groups, rows]; None without scales.
        error: objective of each row [groups, rows].
    """

    codes: npt.NDArray[np.uint8]
    books: Single
    scale: Single | None
    error: Doubles

    def to_codes(self, layer: Layer, scheme: Clusters | IntegerClusters) -> ClusterCodes | IntegerClusterCodes:
        """The codes of the layer's weight, in its stored shape."""
        factors = None if self.scale is None else self.scale.reshape(-1)
        indices = layer.from_matrix(self.codes)
        return scheme.from_indices(indices, self.books, scale=factors, axis=layer.channel_axis)


def solve_clusters(problem: Problem, scheme: Clusters, effort: Effort) -> ClusterSolution:
    """Choose code books and indices of a layer's weights.

    Args:
        problem: the weights and what their errors cost.
        scheme: width of an index, which rows share a code book, whether books hold only what float16 has, whether rows
            have scales.
        effort: how long to search.
    """

    def stored(books: Single, scale: Single) -> tuple[Single, Single]:
        return (_halved(books) if scheme.half else books), scale

    return _solve(problem, scheme, effort, stored)


def solve_integer_clusters(problem: Problem, scheme: IntegerClusters, effort: Effort) -> ClusterSolution:
    """Choose the code book of whole numbers, the indices and the scales of a layer's weights; see `solve_clusters`."""

    def stored(books: Single, scale: Single) -> tuple[Single, Single]:
        whole, unit = scheme.whole(books)
        larger = np.maximum(scale * unit, problem.least_scale)
        narrow, *_ = stored_scales(larger.reshape(-1), scheme.bits)
        return whole, narrow.reshape(scale.shape)

    return _solve(problem, scheme.floats, effort, stored)


def _solve(
    problem: Problem, scheme: Clusters, effort: Effort, stored: Callable[[Single, Single], tuple[Single, Single]]
) -> ClusterSolution:
    """`stored` makes of code books and scales what a file holds of them."""
    target, matrix = problem.weights, problem.second
    book = _book_of_rows(scheme, target.shape)
    levels = 1 << scheme.bits
    scale = _first_scale(target, matrix, scheme) if scheme.scaled else np.ones(target.shape[:2], np.float32)
    books = _start(target, matrix, book, levels, scale)
    best: tuple[float, npt.NDArray[np.uint8], Single, Single] | None = None
    codes: npt.NDArray[np.uint8] | None = None
    for turn in range(effort.rounds + 2):
        books, scale = stored(books, scale)
        grid = _grid(books, book, scale if scheme.scaled else None)
        start = None if codes is None else grid.levels(codes)
        rounded = _rounded(problem, grid, start, effort, anew=turn <= effort.rounds)
        if effort.exact and target.shape[2] <= EXACT_COLUMNS and levels <= EXACT_LEVELS:
            rounded = _exact(target, matrix, grid, rounded)
        codes = grid.codes(rounded)
        total = float(objective(target, rounded, matrix).sum())
        if best is None or total < best[0]:
            best = (total, codes, books, scale)
        if scheme.scaled:
            scale = _best_scale(target, matrix, _grid(books, book, None).levels(codes), scale, scheme)
        books = fit_books(problem, codes, books, book=book, scale=scale)
    assert best is not None
    _, codes, books, scale = best
    error = objective(target, _grid(books, book, scale if scheme.scaled else None).levels(codes), matrix)
    return ClusterSolution(problem.stored(codes), books, scale if scheme.scaled else None, error)


def _book_of_rows(scheme: Clusters, shape: tuple[int, ...]) -> npt.NDArray[np.intp]:
    """Which code book each row uses [groups, rows], from 0."""
    groups, rows, columns = shape
    shared = scheme.blocks((groups * rows, columns), 0)
    return np.broadcast_to(shared.spread(np.arange(shared.count)), (groups * rows, 1)).reshape(groups, rows)


def _rounded(problem: Problem, grid: BookGrid, start: Single | None, effort: Effort, *, anew: bool) -> Single:
    """The best codes for code books, from those at hand and `anew`; rows of large layers in parts, on threads."""
    parts = problem.parts(PART_CELLS, two_from=TWO_PARTS_FROM)
    ends = np.cumsum([part.weights.shape[1] for part in parts])

    def rounded(numbered: tuple[Problem, int]) -> Single:
        part, end = numbered
        rows = np.arange(end - part.weights.shape[1], end)
        here = grid if len(parts) == 1 else grid.rows(rows)
        starts = [] if start is None else [start[:, rows]]
        if anew:
            starts.append(gptq(part.weights, part.factor, here))
        return _best_descent(part, here, starts, effort)

    threads = min(len(parts), cores())
    return np.concatenate(list(in_order(rounded, zip(parts, ends, strict=True), threads=threads)), axis=1)


def _best_descent(problem: Problem, grid: BookGrid, starts: list[Single], effort: Effort) -> Single:
    """Coordinate descent from each start; of two, the better one for each row, since the books are the same."""
    target, matrix = problem.weights, problem.second
    ends = [coordinate_descent(target, start, matrix, grid, sweeps=effort.sweeps) for start in starts]
    errors = [objective(target, end, matrix) for end in ends]
    return ends[0] if len(ends) == 1 else np.where((errors[1] < errors[0])[..., None], ends[1], ends[0])


def fit_books(
    problem: Problem,
    codes: npt.NDArray[np.uint8],
    books: Single,
    *,
    book: npt.NDArray[np.intp],
    scale: Single | None = None,
) -> Single:
    """The best code books for given indices, ascending; entries without a weight stay.

    Args:
        problem: the weights and what their errors cost.
        codes: indices [groups, rows, columns].
        books: to begin with [books, levels].
        book: which code book each row uses [groups, rows].
        scale: of each row [groups, rows], where levels are `scale * book`.
    """
    weights, second = problem.weights, problem.second
    # Entry b of a book counts in a row as `scale * b`: so do its slopes.
    factors = np.ones((1, 1, 1), np.float32) if scale is None else scale[..., None]
    levels = books.shape[1]
    flat = (book[..., None] * levels + codes).astype(np.intp)
    size = books.size

    def collect(values: Floats) -> Doubles:
        return np.bincount(flat.ravel(), values.ravel(), minlength=size).astype(np.float64)

    diagonal = collect(np.broadcast_to(np.einsum("gkk->gk", second)[:, None, :] * factors**2, flat.shape))
    used = diagonal > 0
    scale = np.where(used, diagonal, 1.0)
    ridge = RIDGE * scale
    solution = books.astype(np.float64).ravel()
    error = weights - factors * solution.astype(np.float32)[flat]
    residual = collect(factors * (error @ second))
    direction = residual / scale
    energy = (residual * direction).reshape(-1, levels).sum(axis=1)
    first = energy.copy()
    for _ in range(CG_ITERATIONS):
        curved = collect(factors * ((factors * direction.astype(np.float32)[flat]) @ second)) + ridge * direction
        bend = (direction * curved).reshape(-1, levels).sum(axis=1)
        step = np.repeat(np.where(bend > 0, energy / np.where(bend > 0, bend, 1.0), 0.0), levels)
        solution += step * direction
        residual -= step * curved
        next_energy = (residual * residual / scale).reshape(-1, levels).sum(axis=1)
        ratio = np.where(energy > 0, next_energy / np.where(energy > 0, energy, 1.0), 0.0)
        direction = residual / scale + np.repeat(ratio, levels) * direction
        energy = next_energy
        if (energy <= 1e-10 * first).all():
            break
    fitted = np.where(used, solution, books.ravel()).reshape(books.shape)
    return np.sort(fitted, axis=1).astype(np.float32)


def _first_scale(target: Single, second: Single, scheme: Clusters) -> Single:
    """What each row's weights are in the mean, where inputs make them count [groups, rows]."""
    importance = np.einsum("gkk->gk", second)[:, None, :]
    share = (importance * np.square(target)).sum(axis=2) / np.maximum(importance.sum(axis=2), SMALLEST)
    return scheme.fitting(np.sqrt(share).reshape(-1)).reshape(share.shape)


def _best_scale(target: Single, second: Single, normal: Single, scale: Single, scheme: Clusters) -> Single:
    """The scale of each row for its indices; the old one where there is none that is positive."""
    curved = normal @ second
    top, bottom = (curved * target).sum(axis=2), (curved * normal).sum(axis=2)
    sound = (top > 0) & (bottom > 0)
    fitted = np.where(sound, top / np.where(sound, bottom, 1.0), scale)
    return scheme.fitting(fitted.reshape(-1)).reshape(scale.shape)


def _start(target: Single, second: Single, book: npt.NDArray[np.intp], levels: int, scale: Single) -> Single:
    """k-means of each book's rows in units of their scales, weighted with the diagonal of H."""
    importance = np.einsum("gkk->gk", second)[:, None, :] * np.square(scale)[..., None]
    importance = np.broadcast_to(importance, target.shape)
    target = target / scale[..., None]
    count = int(book.max()) + 1
    members = [book == at for at in range(count)]
    if all(np.count_nonzero(member) == 1 for member in members):
        order = np.argsort(book.ravel())
        columns = target.shape[2]
        return fit_rows(
            target.reshape(-1, columns)[order], levels, weights=importance.reshape(-1, columns)[order]
        ).astype(np.float32)
    fitted = [fit_1d(target[member].ravel(), levels, weights=importance[member].ravel()) for member in members]
    return np.stack(fitted).astype(np.float32)


def _grid(books: Single, book: npt.NDArray[np.intp], scale: Single | None) -> BookGrid:
    if len(books) == 1:
        return BookGrid(books[None], scale)
    return BookGrid(books[book] if scale is None else scale[..., None] * books[book])


def _halved(books: Single) -> Single:
    return np.sort(books.clip(-65504, 65504).astype(np.float16).astype(np.float32), axis=1)


def _exact(target: Single, second: Single, grid: BookGrid, rounded: Single) -> Single:
    groups, rows, columns = target.shape
    books = grid.books if grid.scale is None else grid.scale[..., None] * grid.books
    levels = np.broadcast_to(books, (groups, rows, grid.books.shape[2])).reshape(groups * rows, -1)
    nearest, _ = closest(
        target.reshape(-1, columns), np.repeat(second, rows, axis=0), levels, rounded.reshape(-1, columns)
    )
    return nearest.reshape(target.shape).astype(np.float32)

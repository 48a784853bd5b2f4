"""Codes chosen for what they cost and for what they hurt: one layer's part of the smallest file.

With target W, second moment H of the inputs, a scale s and integer codes k, a layer takes

    J = tr((W - s k) H (W - s k)^T) + multiplier * bits(k)

where `bits` is what the entropy coder of the archive would spend (`packing.entropy.context_costs`: tables of the very
contexts that it will use) and `multiplier`, the Lagrange multiplier, is the output error that one bit is worth. Three
parts lower it in turn:

- the scale: at high rate an entropy-coded grid has D = s^2 / 12 per weight and dD/dR = -2 ln 2 D, so the slope
  `multiplier` asks for `s^2 = 6 multiplier / (ln 2 g)` with g the mean curvature that GPTQ leaves (the geometric mean
  of 1 / U_jj^2, H^-1 = U^T U). With zeros this cheap a somewhat larger scale (`LARGER`) is better.
- beam search: columns in turn as in `solving.gptq`. What a row's codes up to a column cost is the sum of
  `(v - s k)^2 / U_jj^2 + multiplier * bits(k)`, v being what earlier errors made of the weight. That is exact for J but
  for what later columns will have to pay. So the `beam_width` cheapest partial rows go on, each with its own v, and the
  cheapest whole row wins: breadth-first search for the nearest point of a lattice, bits counted.
- coordinate descent on J from there.

The coder's tables depend on the codes, so tables and codes are found in turn. A dead zone, zero rows and zero columns
come out by themselves. At last the scale is fitted to the codes in closed form.

A code has 8 bits, for some integer kernels 7 (`Limits`). Where a row has weights that are too large for them, its
levels lie farther apart, and the others keep the scale that the slope asks for: rows of depthwise layers, whose weights
took in batch norms, may be a hundred times larger than their neighbors. An octave has `STEPS` scales for such rows.

Sources: Sullivan 1996, "Efficient scalar quantization of exponential and Laplacian random variables"; rate-distortion
optimized quantization as in video coding (Karczewicz et al. 2008, VCEG-AH21); error feedback: Frantar et al. 2022,
"GPTQ"; beam search: Anderson and Mohan 1984, "Sequential coding algorithms: a survey and cost analysis" (the
M-algorithm). Gives up: the optimum, for which the beam would have to be without limit.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lowbit.graph.ops import Layer
from lowbit.quantization.solving.gptq import BLOCK
from lowbit.quantization.solving.layer import rows_are_channels
from lowbit.quantization.solving.problem import Floats, Single, inverse_factor, objective
from lowbit.quantization.solving.rates import Rates, WholeNumbers

LARGEST = 127  # a code is at most 8 bits wide in the ONNX file
LARGER = 1.2
STEPS = 8  # of an octave; in steps of whole octaves rows that are too large had twice the error
ROUNDS = 1  # how often codes and the coder's tables are found in turn
SWEEPS = 2
BEAM_WIDTH = 8
HELD = 1 << 19  # weights of all partial solutions that are searched together; on two threads it was slower
LEAST_GAIN = 1e-5
SMALLEST = 1e-30


@dataclass(frozen=True)
class Limits:
    """What the file, or the kernel that multiplies with the codes, asks of them.

    Attributes:
        largest: magnitude of a code.
        least_scale: no channel may have a smaller scale [output channels]; None where nothing asks for more.
        one_scale: whether all rows have the same.
        whole_bytes: whether codes are stored in a byte each, as integer kernels read them, whatever their width. In an
            archive nodes that unpack them would only be in the way: 1.2 % of ResNet20 at 3 bits.
    """

    largest: int = LARGEST
    least_scale: Single | None = None
    one_scale: bool = False
    whole_bytes: bool = False


@dataclass(frozen=True)
class RateSolution:
    """A layer's codes.

    Attributes:
        codes: [groups, rows, columns], as large as `Limits` allow.
        scale: distance of two neighboring levels of each row [groups, rows].
        distortion: tr((W - scale codes) H (W - scale codes)^T), summed over groups.
        bits: what the coder needs for the codes.
    """

    codes: WholeNumbers
    scale: Single
    distortion: float
    bits: float


def high_rate_scale(factor: Single, multiplier: float) -> float:
    """The scale at which one more bit of an entropy-coded grid saves `multiplier` of distortion."""
    inverse = np.einsum("gkk->gk", factor).astype(np.float64)
    curvature = float(np.exp(-2.0 * np.log(inverse).mean()))
    return float(np.sqrt(6.0 * multiplier / (np.log(2.0) * curvature)))


def row_scales(layer: Layer, target: Floats, wanted: float, limits: Limits = Limits()) -> Single:
    """The scale that is wanted; for rows that are too large for it the least that holds them [groups, rows].

    Args:
        layer: where the weight belongs; all rows have the same scale where rows are not channels of the weight.
        target: wanted weights [groups, rows, columns].
        wanted: the scale.
        limits: of codes and scales.
    """
    least = np.abs(target).max(axis=2) / limits.largest
    if limits.least_scale is not None:
        least = np.maximum(least, limits.least_scale.reshape(least.shape))
    if limits.one_scale or not rows_are_channels(layer):
        least = np.full_like(least, least.max())
    finest = max(float(least.min(where=least > 0, initial=least.max())), SMALLEST)
    steps = np.ceil(STEPS * np.log2(np.maximum(least / finest, 1.0)))
    return np.asarray(np.maximum(finest * 2.0 ** (steps / STEPS), wanted), np.float32)


def solve_rate(
    layer: Layer,
    target: Floats,
    second: Single,
    multiplier: float,
    *,
    beam_width: int = BEAM_WIDTH,
    limits: Limits = Limits(),
) -> RateSolution:
    """Codes of a layer for one Lagrange multiplier.

    Args:
        layer: how the matrix stands to the stored weight, whose order the coder sees.
        target: wanted weights [groups, rows, columns].
        second: H, positive definite [groups, columns, columns].
        multiplier: output error (in units of the objective) that is worth one bit.
        beam_width: partial solutions of each row that the search keeps, up to 127.
        limits: of codes and scales.
    """
    order = np.argsort(-np.einsum("gkk->gk", second).mean(axis=0), kind="stable")
    factor = inverse_factor(second, order)
    scale = row_scales(layer, target, LARGER * high_rate_scale(factor, multiplier), limits)
    problem = _Problem(layer, np.asarray(target, np.float32), second, order, scale, multiplier, limits.largest)
    codes = np.rint(problem.target / scale[..., None]).clip(-limits.largest, limits.largest).astype(np.int32)
    rates = Rates.of(codes, layer)
    for _ in range(ROUNDS):
        codes = problem.beam_search(rates, factor, 1)
        rates = rates.again(codes)
    codes = problem.beam_search(rates, factor, beam_width)
    del factor  # as large as H
    codes = problem.coordinate_descent(codes, rates)
    fitted = problem.fitted_scale(codes)
    distortion = float(objective(target, np.asarray(codes * fitted[..., None], np.float64), second).sum())
    return RateSolution(codes, fitted, distortion, Rates.of(codes, layer).total)


@dataclass(frozen=True)
class _Problem:
    """What stays the same while a layer is solved."""

    layer: Layer
    target: Single
    second: Single
    order: npt.NDArray[np.intp]
    scale: Single
    multiplier: float
    largest: int

    def beam_search(self, rates: Rates, factor: Single, beam_width: int) -> WholeNumbers:
        """Column by column, each error passed on to those that follow; the `beam_width` best of each row go on."""
        groups, rows, columns = self.target.shape
        most = max(1, HELD // (beam_width * groups * columns))
        if rows > most:
            parts = [slice(first, first + most) for first in range(0, rows, most)]
            searched = [
                replace(self, target=self.target[:, part], scale=self.scale[:, part]).beam_search(
                    replace(rates, context=rates.context[:, part]), factor, beam_width
                )
                for part in parts
            ]
            return np.concatenate(searched, axis=1)
        left = np.repeat(self.target[None, :, :, self.order], beam_width, axis=0)
        spent = np.full((beam_width, groups, rows), np.inf, np.float32)
        spent[0] = 0
        kept = np.empty((columns, beam_width, groups, rows), np.int8)
        parents = np.empty(kept.shape, np.int8)
        own = np.arange(groups * rows)
        for start in range(0, columns, BLOCK):
            stop = min(start + BLOCK, columns)
            block = np.ascontiguousarray(left[..., start:stop].transpose(3, 0, 1, 2))
            corner = factor[:, start:stop, start:stop]
            errors = np.empty_like(block)
            # Which partial solution at the beginning of the block each one at its end goes back to.
            origin = np.repeat(np.arange(beam_width), len(own))
            for at in range(stop - start):
                inverse = corner[:, at, at, None]
                column = int(self.order[start + at])
                codes, parent, spent = self._extended(
                    block[at], spent, np.float32(1) / (inverse * inverse), rates, column, own
                )
                kept[start + at], parents[start + at] = codes, parent.reshape(spent.shape)
                if beam_width > 1:
                    source = (parent * len(own) + own).reshape(-1)
                    block[at:] = _taken(block[at:], source)
                    errors[:at] = _taken(errors[:at], source)
                    origin = origin.take(source)
                errors[at] = (block[at] - codes * self.scale) / inverse
                block[at + 1 :] -= corner[:, at, at + 1 :].T[:, None, :, None] * errors[at]
            if stop < columns:
                if beam_width > 1:
                    chosen = origin.reshape(spent.shape)[..., None]
                    left[..., stop:] = np.take_along_axis(left[..., stop:], chosen, axis=0)
                left[..., stop:] -= errors.transpose(1, 2, 3, 0) @ factor[:, start:stop, stop:]
        return self._traced(kept, parents, spent.argmin(axis=0)[None])

    def _extended(
        self,
        values: Single,
        spent: Single,
        curve: Single,
        rates: Rates,
        column: int,
        own: npt.NDArray[np.intp],
    ) -> tuple[Single, npt.NDArray[np.intp], Single]:
        """The best ways to go on by one column: codes, which solutions [beam_width, rows] they continue, costs."""
        nearest = self._nearest(values)
        tried = np.stack([nearest, nearest - 1, nearest + 1, np.zeros_like(nearest)])
        tried = tried.clip(-self.largest, self.largest)
        error = values - tried * self.scale
        cost = spent + curve * error * error + np.float32(self.multiplier) * rates.at(tried, column)
        cost[3][np.abs(nearest) <= 1] = np.inf  # tried already
        cost[1:3][np.abs(tried[1:3] - nearest) < 1] = np.inf
        beam_width = len(values)
        flat = cost.reshape(-1, len(own))
        best = (
            flat.argmin(axis=0)[None] if beam_width == 1 else np.argpartition(flat, beam_width - 1, axis=0)[:beam_width]
        )
        at = best * len(own) + own
        return tried.take(at).reshape(spent.shape), best % beam_width, flat.take(at).reshape(spent.shape)

    def _nearest(self, values: Single) -> Single:
        """The code [..., groups, rows] whose level is nearest to a value."""
        return np.asarray(np.rint(values / self.scale).clip(-self.largest, self.largest), np.float32)

    def _traced(
        self, kept: npt.NDArray[np.int8], parents: npt.NDArray[np.int8], path: npt.NDArray[np.intp]
    ) -> WholeNumbers:
        """The codes of the solutions that end at `path` [1, groups, rows]."""
        codes = np.empty(self.target.shape, np.int32)
        for at in range(len(kept) - 1, -1, -1):
            codes[:, :, self.order[at]] = np.take_along_axis(kept[at], path, axis=0)[0]
            path = np.take_along_axis(parents[at], path, axis=0).astype(np.intp)
        return codes

    def coordinate_descent(self, codes: WholeNumbers, rates: Rates) -> WholeNumbers:
        """Coordinate descent on distortion and bits, with the tables as they are."""
        codes = codes.copy()
        scale = self.scale
        slope = (self.target - codes.astype(np.float32) * scale[..., None]) @ self.second
        diagonal = np.einsum("gkk->gk", self.second)
        for _ in range(SWEEPS):
            moved = False
            for column in range(codes.shape[-1]):
                now = codes[:, :, column]
                curve = diagonal[:, column, None]
                wanted = np.asarray(now * scale, np.float32) + slope[:, :, column] / curve
                best = self._best(wanted, curve, rates, column, now)
                change = (best - now) * scale
                if change.any():
                    moved = True
                    codes[:, :, column] = best
                    slope -= change[:, :, None] * self.second[:, None, column]
            if not moved:
                break
        return codes

    def _best(self, values: Single, curve: Single, rates: Rates, column: int, now: npt.NDArray[np.int32]) -> Single:
        """The code of each value [groups, rows] that is best for `curve * error^2 + multiplier * bits`.

        Tried are the nearest, the next two towards zero, zero, and `now`, which stays unless another is really better.
        """
        nearest = self._nearest(values)
        inwards = np.sign(nearest)
        two = nearest - np.minimum(np.abs(nearest), 2) * inwards
        candidates = np.stack([now.astype(np.float32), nearest, nearest - inwards, two, np.zeros_like(nearest)])
        error = values - candidates * self.scale
        cost = curve * error * error + np.float32(self.multiplier) * rates.at(candidates, column)
        cost[0] *= np.float32(1 - LEAST_GAIN)
        return np.asarray(np.take_along_axis(candidates, cost.argmin(axis=0)[None], axis=0)[0], np.float32)

    def fitted_scale(self, codes: WholeNumbers) -> Single:
        """The scales times the factor that is best for these codes: with u = scale code, `w^T H u / u^T H u`."""
        steps = codes.astype(np.float32) * self.scale[..., None]
        curved = steps @ self.second
        top = float(np.einsum("grk,grk->", curved, self.target, dtype=np.float64))
        bottom = float(np.einsum("grk,grk->", curved, steps, dtype=np.float64))
        return self.scale * np.float32(top / bottom) if top > 0 and bottom > 0 else self.scale


def _taken(values: Single, source: npt.NDArray[np.intp]) -> Single:
    """Values [columns, beam_width, groups, rows] taken from the flat positions `source` of each column."""
    return values.reshape(len(values), source.size).take(source, axis=1).reshape(values.shape)

"""How far a network has run over the calibration images: the tensors at a cut, and whatever is computed from there.

Whoever looks at a network layer by layer would run its beginning again for every layer. A frontier keeps, for each
batch, the tensors that nodes from a position on read of what is there before it, so that a run only takes what lies
between. They may be kept in fewer bytes (`Compact`): the earlier a cut fits into memory, the less is run again.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from lowbit.engines import Session, open_session
from lowbit.engines.onnxruntime import opened_filler
from lowbit.graph.conversion import conversion
from lowbit.graph.subgraph import ActivationGrid, Subgraphs
from lowbit.processor import in_order

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Array]
Kept = Mapping[str, "Array | Compact"]

HALF_TOP = 15  # the largest magnitude becomes less than 2^15: half of what float16 holds
LEAST_EXPONENT = -126  # of float32


@dataclass(frozen=True)
class Compact:
    """A float tensor in fewer bytes: on its grid as codes, exactly; else in float16 (11 bits, errors of -77 dB).

    Attributes:
        values: codes (uint8, uint16), or float16, in the tensor's shape.
        scale: what a step of `values` is worth; a power of two where they are floats, so that no tensor is too large or
            too small for float16.
        zero_point: the code that stands for 0.0; 0 for float16.
    """

    values: Array
    scale: float
    zero_point: int = 0

    @staticmethod
    def of(x: Array, grid: ActivationGrid | None) -> "Compact | Array":
        """A tensor, which has already been rounded to its grid if it has one; what is not float32 stays as it is."""
        if x.dtype != np.float32:
            return x
        if grid is not None:
            codes = np.rint(x / np.float32(grid.scale)) + np.float32(grid.zero_point)
            return Compact(codes.astype(f"uint{grid.bits}"), grid.scale, grid.zero_point)
        largest = float(np.abs(x).max(initial=0.0))
        scale = 2.0 ** max(np.frexp(largest)[1] - HALF_TOP, LEAST_EXPONENT) if np.isfinite(largest) else 1.0
        return Compact(_converted(x / np.float32(scale), to_half=True), scale)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.values.nbytes

    def restored(self) -> Array:
        """The tensor as float32."""
        if self.values.dtype == np.float16:
            levels = _converted(self.values, to_half=False)
        else:
            levels = self.values.astype(np.float32)
            levels -= np.float32(self.zero_point)
        levels *= np.float32(self.scale)
        return levels


def _converted(x: Array, *, to_half: bool) -> Array:
    """`x` in float16 or float32: numpy's values, in a thirtieth of its time."""
    x = np.asarray(x, order="C")
    result = np.empty(x.shape, np.float16 if to_half else np.float32)
    _conversion(to_half)(x, result)
    return result


@cache
def _conversion(to_half: bool) -> Callable[[Array, Array], None]:
    return opened_filler(conversion(to_half=to_half))


def compacted(tensors: Tensors, grids: Mapping[str, ActivationGrid]) -> Kept:
    """Tensors in fewer bytes; those that have a grid have been rounded to it."""
    return {name: Compact.of(x, grids.get(name)) for name, x in tensors.items()}


def restored(kept: Kept) -> Tensors:
    """The tensors that were kept."""
    return {name: x.restored() if isinstance(x, Compact) else x for name, x in kept.items()}


def compact_share(grid: ActivationGrid | None) -> float:
    """Bytes of a `Compact` for each byte of the float32 tensor."""
    return (16 if grid is None else grid.bits) / 32


def on_grids(tensors: Mapping[str, Array], grids: Mapping[str, ActivationGrid]) -> Tensors:
    """Tensors rounded to their grids, where they have one."""
    return {name: grids[name].rounded(x) if name in grids else x for name, x in tensors.items()}


class Frontier:
    """A position in a network, and each batch's tensors there.

    Args:
        pieces: the network.
        inputs: each batch's tensors at the network's inputs; iterated anew for each run until they are kept.
        threads: that share the batches, with one thread of the runtime each.
        grids: grids that computed tensors are rounded to, by name; those of `inputs` are the caller's business.

    Attributes:
        position: nodes before it have run.
    """

    def __init__(
        self,
        pieces: Subgraphs,
        inputs: Iterable[Tensors],
        *,
        threads: int,
        grids: Mapping[str, ActivationGrid] | None = None,
    ) -> None:
        self.pieces = pieces
        self.threads = threads
        self.grids = grids or {}
        self.position = 0
        self._inputs = inputs
        self._kept: deque[Kept] | None = None  # None: the inputs themselves

    def runner(
        self, names: Sequence[str], *, weights: Mapping[str, Array] | None = None, exact: Sequence[str] = ()
    ) -> Callable[[Kept], Tensors]:
        """What computes tensors from what is kept of one batch at the frontier.

        Args:
            names: tensors wanted.
            weights: values in place of those of the model, by initializer name.
            exact: tensors that are not rounded, whatever grid they have.
        """
        available = self.pieces.crossing(self.position)
        missing = [name for name in dict.fromkeys(names) if name not in available]
        session: Session | None = None
        inputs: tuple[str, ...] = ()
        if missing:
            grids = {name: grid for name, grid in self.grids.items() if name not in exact}
            piece, inputs = self.pieces.extract(available, missing, weights=weights or {}, rounded=grids)
            session = open_session(piece, threads=1)

        def run(kept: Kept) -> Tensors:
            there = restored({name: kept[name] for name in dict.fromkeys((*names, *inputs)) if name in available})
            wanted = {name: there[name] for name in names if name in available}
            return wanted if session is None else wanted | session.run({name: there[name] for name in inputs})

        return run

    def batches(self, *, last: bool = False) -> Iterator[Kept]:
        """What is kept of each batch; if this is the `last` time, each is forgotten as it is given."""
        if self._kept is None:
            yield from self._inputs
        elif last:
            while self._kept:
                yield self._kept.popleft()
        else:
            yield from self._kept

    def advance(self, position: int, *, weights: Mapping[str, Array] | None = None, compact: bool = False) -> None:
        """Run up to a position and keep what is read from there on, as `Compact` if that is asked for."""
        run = self.runner(self.pieces.crossing(position), weights=weights)

        def to_keep(kept: Kept) -> Kept:
            return compacted(run(kept), self.grids) if compact else run(kept)

        self.keep(position, in_order(to_keep, self.batches(last=True), threads=self.threads))

    def keep(self, position: int, kept: Iterable[Kept]) -> None:
        """Go on from a position with each batch's tensors there, which the caller has computed."""
        self._kept = deque(kept)
        self.position = position

    @property
    def size(self) -> int:
        """Bytes of the tensors that are kept."""
        return sum(tensor.nbytes for tensors in self._kept or () for tensor in tensors.values())

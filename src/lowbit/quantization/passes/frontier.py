"""How far a network has run over the calibration images: the tensors at a cut, and whatever is computed from there.

Whoever looks at a network layer by layer would run its beginning again for every layer. A frontier keeps, for each
batch, the tensors that nodes from a position on read of what is there before it, so that a run only takes what lies
between.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lowbit.engines import Session, open_session
from lowbit.graph.subgraph import ActivationGrid, Subgraphs
from lowbit.processor import in_order

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Array]


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
        self._kept: deque[Tensors] | None = None  # None: the inputs themselves

    def runner(
        self, names: Sequence[str], *, weights: Mapping[str, Array] | None = None, exact: Sequence[str] = ()
    ) -> Callable[[Tensors], Tensors]:
        """What computes tensors from those of one batch at the frontier.

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

        def run(tensors: Tensors) -> Tensors:
            kept = {name: tensors[name] for name in names if name in available}
            return kept if session is None else kept | session.run({name: tensors[name] for name in inputs})

        return run

    def batches(self, *, last: bool = False) -> Iterator[Tensors]:
        """Each batch's tensors at the frontier; if this is the `last` time, each is forgotten as it is given."""
        if self._kept is None:
            yield from self._inputs
        elif last:
            while self._kept:
                yield self._kept.popleft()
        else:
            yield from self._kept

    def advance(self, position: int, *, weights: Mapping[str, Array] | None = None) -> None:
        """Run up to a position and keep what is read from there on."""
        run = self.runner(self.pieces.crossing(position), weights=weights)
        self.keep(position, in_order(run, self.batches(last=True), threads=self.threads))

    def keep(self, position: int, tensors: Iterable[Tensors]) -> None:
        """Go on from a position with each batch's tensors there, which the caller has computed."""
        self._kept = deque(tensors)
        self.position = position

    @property
    def size(self) -> int:
        """Bytes of the tensors that are kept."""
        return sum(tensor.nbytes for tensors in self._kept or () for tensor in tensors.values())

"""The pass over the network, layer by layer, each seeing what the already quantized layers before it really give.

Two networks run side by side over the calibration images: the float one says what a layer's output should be (t), the
quantized one what the layer gets (x). What their tensors held at the last cut is kept for all images, and each layer's
inputs are computed from there. Where a cut is small enough it becomes the next place to start from; where cuts are
large (the wide tensors inside a MobileNet block), several layers are computed from the last small one. The float
network does not wait for solutions: one run of it from cut to cut gives the targets of all layers between, at the
positions that are looked at and no others. So the whole pass costs one run of the float network and two or three of the
quantized one. With many images even small cuts may not fit: then the images themselves stay the cut, and memory is
bounded at the price of time.

Batches are shared by threads, with one thread of the runtime each, and what they give is added up in their order, so
that the number of threads does not change the result.

A convolution whose output goes straight into a sum is aimed at the float *sum*, less what the other branch now gives
(the shortcut's error is made good here, before it can travel on; compare the block-wise targets of Li et al. 2021,
"BRECQ").
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.moments import Moments, MomentSums, Targets, columns_at, rows_at, targets
from lowbit.data.images import Images
from lowbit.engines import Session, open_session
from lowbit.errors import DataError
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers, single_consumer
from lowbit.graph.subgraph import ActivationGrid, Subgraphs
from lowbit.processor import cores, give_back_memory, in_order
from lowbit.progress import SILENT, Progress

WIDEST = 4608  # columns whose second moment is worth its memory (162 MB in float64)
# Columns from which a layer's products fill the memory (85 MB for each batch on its way at 4608): the system gets back
# what others left before, and none are made ahead.
WIDE = 1024
BATCH = 4  # images a run; twice as many cost 100 MB and gain little
MEMORY = 96 << 20  # bytes of activations kept between layers
HELD = 24 << 20  # bytes of targets that one run of the float network leaves, unless a single layer needs more
FEWEST_POSITIONS = 16384  # of a layer's input that moments are taken from, if there are as many

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Array]
Job = tuple[int, Tensors]  # number of a batch, and its tensors


@dataclass(frozen=True)
class Replacement:
    """What a solved layer computes with from now on.

    Attributes:
        weight: decoded, in the stored shape.
        bias: corrected; None leaves it.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None


Solve = Callable[[Layer, Moments], Replacement]


def walk(
    model: Model,
    images: Images,
    chosen: Sequence[str],
    solve: Solve,
    *,
    rounded: Mapping[str, ActivationGrid] | None = None,
    positions: int = 120,
    limit: int | None = None,
    memory: int = MEMORY,
    threads: int = 0,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, npt.NDArray[np.float32]]:
    """Solve the chosen layers in execution order on the inputs that the quantized prefix gives them.

    Args:
        model: the prepared float model.
        images: calibration images; labels are not used.
        chosen: names of the nodes to solve; all others stay float.
        solve: told the moments of a layer, returns its new weight and bias.
        rounded: activations that the quantized network rounds, with their grids.
        positions: input positions that moments are taken from, for each column of the layer's matrix.
        limit: most images that are looked at.
        memory: bytes of activations kept between layers.
        threads: that share the images; 0 takes as many as there are cores.
        seed: decides which positions are looked at.
        progress: told after every layer.

    Returns:
        The new values of biases, by initializer name. New weights are forgotten as soon as no later layer reads them.

    Raises:
        DataError: there is no image, or too few for the model's fixed batch.
    """
    todo = [layer for layer in layers(model) if layer.node in set(chosen)]
    path = _Path(
        model,
        images,
        rounded or {},
        todo,
        positions=positions,
        limit=limit,
        memory=memory,
        threads=threads or cores(),
        seed=seed,
    )
    readers: dict[str, int] = {}
    for layer in layers(model):
        if layer.bias is not None:
            readers[layer.bias] = readers.get(layer.bias, 0) + 1
    biases: dict[str, npt.NDArray[np.float32]] = {}
    for layer in progress.track(todo, "rounding", total=len(todo)):
        movable = layer.bias is not None and readers[layer.bias] == 1
        moments = path.moments(layer, centred=movable)
        found = solve(layer, moments)
        path.replaced[layer.weight] = found.weight
        if movable and found.bias is not None and layer.bias is not None:
            path.replaced[layer.bias] = biases[layer.bias] = found.bias
    give_back_memory()
    return biases


@dataclass
class _Stand:
    """How far one of the two networks has come: `kept` are the tensors of each batch that nodes from `at` on read."""

    at: int = 0
    kept: deque[Tensors] | None = None  # None: the images themselves


class _Path:
    """Both networks on their way, and where they stand."""

    def __init__(
        self,
        model: Model,
        images: Images,
        rounded: Mapping[str, ActivationGrid],
        todo: Sequence[Layer],
        *,
        positions: int,
        limit: int | None,
        memory: int,
        threads: int,
        seed: int,
    ) -> None:
        self.model = model
        self.rounded = rounded
        self.todo = todo
        self.pieces = Subgraphs(model)
        self.positions = positions
        self.threads = threads
        self.seed = seed
        self.replaced: dict[str, npt.NDArray[np.float32]] = {}
        self.images = images
        self.limit = limit
        first = model.input.shape[0] if model.input.shape else None
        self.batch = first if isinstance(first, int) else BATCH
        self.count = min(images.count, limit or images.count) // (self.batch if isinstance(first, int) else 1)
        if self.count == 0:
            raise DataError(
                "there are too few images to calibrate on.",
                where=images.name,
                remedy=f"Give at least {self.batch if isinstance(first, int) else 1}.",
            )
        self.fixed = isinstance(first, int)
        self.budget = memory
        self.sizes = self._sizes()
        give_back_memory()
        self.float = _Stand()
        self.quantized = _Stand()
        self.targets: dict[str, list[Targets]] = {}  # of each batch, by node

    def moments(self, layer: Layer, *, centred: bool) -> Moments:
        """Moments of the layer's inputs on the quantized path with the float path's outputs."""
        if layer.node not in self.targets:
            self._look_ahead(layer)
        if layer.columns >= WIDE:
            give_back_memory()
        wanted = self.targets.pop(layer.node)
        shortcut = self._shortcut(layer)
        source = self._run(
            self.quantized, [layer.input] + ([shortcut] if shortcut else []), self.replaced, self.rounded
        )

        def looked_at(job: Job) -> tuple[Array, Array]:
            number, kept = job
            found, aim = source(kept), wanted[number]
            t = aim.rows - rows_at(layer, found[shortcut], aim.keep) if shortcut else aim.rows
            return columns_at(layer, found[layer.input], aim), t

        sums = MomentSums(centred, joint=layer.columns <= WIDEST)
        jobs = enumerate(self._batches(self.quantized, rounded=True))
        sums.add(*looked_at(next(jobs)))
        ahead = 1 if layer.columns < WIDE else 0
        for products in in_order(lambda job: sums.products(*looked_at(job)), jobs, threads=self.threads, ahead=ahead):
            sums.merge(products)
            del products  # as large as H
        return sums.result()

    def _look_ahead(self, layer: Layer) -> None:
        """Move the quantized path to the layer's cut, and run the float path to the next with targets on the way."""
        first = self.todo.index(layer)
        cut = self._cut(layer)
        if cut > self.quantized.at:
            names = self.pieces.crossing(cut)
            run = self._run(self.quantized, names, self.replaced, self.rounded)
            batches = self._batches(self.quantized, rounded=True, last=True)
            self.quantized = _Stand(cut, deque(in_order(run, batches, threads=self.threads)))
            read = self.pieces.read_from(cut)
            self.replaced = {name: value for name, value in self.replaced.items() if name in read}
        last, held = first + 1, self._target_bytes(layer)
        while last < len(self.todo) and self._cut(self.todo[last]) == cut:
            held += self._target_bytes(self.todo[last])
            if held > HELD:
                break
            last += 1
        following = max(cut, self._cut(self.todo[last])) if last < len(self.todo) else cut
        ahead = self.pieces.crossing(following) if following > self.float.at else ()
        stretch = self.todo[first:last]
        shortcuts = {each.node: self._shortcut(each) for each in stretch}
        outputs = [each.output for each in stretch] + [name for name in shortcuts.values() if name]
        run = self._run(self.float, [*outputs, *ahead])

        def aims(job: Job) -> tuple[list[Targets], Tensors]:
            number, kept = job
            found = run(kept)
            result = []
            for each in stretch:
                shortcut, t = shortcuts[each.node], found[each.output]
                generator = np.random.default_rng((self.seed, number))
                t = t + found[shortcut] if shortcut else t
                result.append(targets(each, t, share=self._share(each), generator=generator))
            return result, {name: found[name] for name in ahead}

        moved: deque[Tensors] = deque()
        self.targets = {each.node: [] for each in stretch}
        jobs = enumerate(self._batches(self.float, rounded=False, last=bool(ahead)))
        for found, kept in in_order(aims, jobs, threads=self.threads):
            for each, aim in zip(stretch, found, strict=True):
                self.targets[each.node].append(aim)
            moved.append(kept)
        if ahead:
            self.float = _Stand(following, moved)

    def _share(self, layer: Layer) -> float:
        """Share of the layer's positions that its moments are taken from."""
        total = self._positions(layer)
        return min(1.0, max(FEWEST_POSITIONS, self.positions * layer.columns) / total)

    def _positions(self, layer: Layer) -> int:
        """Places of the layer's output in all images."""
        return max(1, self.sizes[layer.output] // (4 * layer.out_channels) * self._batch_count())

    def _target_bytes(self, layer: Layer) -> int:
        return round(self._share(layer) * self._positions(layer)) * layer.out_channels * 4

    def _shortcut(self, layer: Layer) -> str | None:
        """The other branch of the sum that the layer's output goes straight into, if it is there before."""
        add = single_consumer(self.model, layer.output)
        if add is None or add.op_type != "Add" or add.domain not in ("", "ai.onnx") or layer.bias_node is not None:
            return None
        names = [str(value.name) for value in add.inputs if value is not None]
        if layer.output not in names or len(set(names)) != 2:
            return None
        other = names[1 - names.index(layer.output)]
        at = self.pieces.produced_by(other)
        same = self.sizes.get(other) is not None and self.sizes.get(other) == self.sizes.get(layer.output)
        return other if same and 0 <= at < self.pieces.position(layer.node) else None

    def _cut(self, layer: Layer) -> int:
        """The last cut up to the layer that fits into memory; 0, the images, if there is none."""
        for cut in range(self.pieces.position(layer.node), self.quantized.at, -1):
            size = sum(self.sizes.get(name, 0) for name in self.pieces.crossing(cut))
            if 2 * size * self._batch_count() <= self.budget:
                return cut
        return self.quantized.at

    def _run(
        self,
        stand: _Stand,
        names: Sequence[str],
        weights: Mapping[str, Array] | None = None,
        rounded: Mapping[str, ActivationGrid] | None = None,
    ) -> Callable[[Tensors], Tensors]:
        """What computes these tensors from those that are kept."""
        available = self.pieces.crossing(stand.at)
        missing = [name for name in dict.fromkeys(names) if name not in available]
        session: Session | None = None
        inputs: tuple[str, ...] = ()
        if missing:
            piece, inputs = self.pieces.extract(available, missing, weights=weights or {}, rounded=rounded)
            session = open_session(piece, threads=1)

        def run(kept: Tensors) -> Tensors:
            found = {name: kept[name] for name in names if name in available}
            return found if session is None else found | session.run({name: kept[name] for name in inputs})

        return run

    def _batches(self, stand: _Stand, *, rounded: bool, last: bool = False) -> Iterator[Tensors]:
        """Tensors at the cut, batch by batch; forgotten as they are given if it is the last time."""
        if stand.kept is not None and not last:
            yield from stand.kept
            return
        while stand.kept:
            yield stand.kept.popleft()
        if stand.kept is not None:
            return
        name = self.model.input.name
        for number, part in enumerate(self.images.batches(self.batch, limit=self.limit)):
            if not (self.fixed and (len(part.x) < self.batch or number >= self.count)):
                yield {name: self._rounded_input(part.x) if rounded else part.x}

    def _rounded_input(self, x: Array) -> Array:
        if self.model.input.name not in self.rounded:
            return x
        return self.rounded[self.model.input.name].rounded(x)

    def _batch_count(self) -> int:
        return self.count if self.fixed else -(-self.count // self.batch)

    def _sizes(self) -> dict[str, int]:
        """Bytes of each computed tensor for one batch, by running the float network on the first."""
        name = self.model.input.name
        x = next(iter(self.images.batches(self.batch if self.fixed else 1, limit=self.limit))).x
        needed = {layer.output for layer in self.todo}
        numeric = [tensor for tensor in self.pieces.computed() if tensor in needed or self._has_size(tensor)]
        piece, inputs = self.pieces.extract([name], numeric, weights={})
        found = open_session(piece, threads=1).run({name: x} if name in inputs else {})
        times = 1 if self.fixed else self.batch
        return {name: x.nbytes * times} | {tensor: value.nbytes * times for tensor, value in found.items()}

    def _has_size(self, tensor: str) -> bool:
        return self.model.values[tensor].dtype is not None

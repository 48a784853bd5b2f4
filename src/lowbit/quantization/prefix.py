"""The pass over the network, layer by layer, each seeing what the already quantized layers before it really give.

Two networks run side by side over the calibration images: the float one says what a layer's output should be (t), the
quantized one what the layer gets (x). Both advance together: what their tensors held at the last cut is kept for all
images, each layer's inputs are computed from there, and where a cut is small enough it becomes the next place to start
from, so that the whole pass costs little more than two runs of the network. Where cuts are large (the wide tensors
inside a MobileNet block), they are computed again from the last small one. With many images even that may not fit: then
the images themselves stay the cut, and memory is bounded at the price of time.

A convolution whose output goes straight into a sum is aimed at the float *sum*, less what the other branch now gives
(the shortcut's error is made good here, before it can travel on; compare the block-wise targets of Li et al. 2021,
"BRECQ").
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.moments import Moments, MomentSums, sampled
from lowbit.data.images import Images
from lowbit.engines import Session, open_session
from lowbit.errors import DataError
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers, single_consumer
from lowbit.graph.subgraph import Rounded, Subgraphs
from lowbit.progress import SILENT, Progress

BATCH = 16
MEMORY = 160 << 20  # bytes of activations kept between layers
FEWEST_POSITIONS = 16384  # of a layer's input that moments are taken from, if there are as many

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Array]


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
    rounded: Mapping[str, Rounded] | None = None,
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
        threads: threads of the runtime; 0 leaves it to the runtime.
        seed: decides which positions are looked at.
        progress: told after every layer.

    Returns:
        The new values of weights and biases, by initializer name.

    Raises:
        DataError: there is no image, or too few for the model's fixed batch.
    """
    path = _Path(model, images, rounded or {}, limit=limit, memory=memory, threads=threads)
    todo = [layer for layer in layers(model) if layer.node in set(chosen)]
    readers: dict[str, int] = {}
    for layer in layers(model):
        if layer.bias is not None:
            readers[layer.bias] = readers.get(layer.bias, 0) + 1
    for layer in progress.track(todo, "rounding", total=len(todo)):
        movable = layer.bias is not None and readers[layer.bias] == 1
        moments = path.moments(layer, positions=positions, centred=movable, seed=seed)
        found = solve(layer, moments)
        path.replaced[layer.weight] = found.weight
        if movable and found.bias is not None and layer.bias is not None:
            path.replaced[layer.bias] = found.bias
    return path.replaced


class _Path:
    """Both networks on their way, and where they stand."""

    def __init__(
        self,
        model: Model,
        images: Images,
        rounded: Mapping[str, Rounded],
        *,
        limit: int | None,
        memory: int,
        threads: int,
    ) -> None:
        self.model = model
        self.rounded = rounded
        self.pieces = Subgraphs(model)
        self.threads = threads
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
        self.at = 0  # kept tensors are those that nodes from here on read
        self.kept: list[tuple[Tensors, Tensors]] | None = None  # float and quantized, for each batch
        self.sizes = self._sizes()
        self.budget = memory

    def moments(self, layer: Layer, *, positions: int, centred: bool, seed: int) -> Moments:
        """Moments of the layer's inputs on the quantized path with the float path's outputs."""
        self._advance(self.pieces.position(layer.node))
        shortcut = self._shortcut(layer)
        wanted = [layer.output] + ([shortcut] if shortcut else [])
        given = [layer.input] + ([shortcut] if shortcut else [])
        target, source = self._run(wanted), self._run_quantized(given)
        sums = MomentSums(centred)
        generator = np.random.default_rng(seed)
        share = 1.0
        for kept in self._batches():
            floats, quantized = target(kept[0]), source(kept[1])
            t, x = floats[layer.output], quantized[layer.input]
            if shortcut:
                t = t + (floats[shortcut] - quantized[shortcut])
            if sums.count == 0:
                total = t.size // layer.out_channels * self._batch_count()
                share = min(1.0, max(FEWEST_POSITIONS, positions * layer.columns) / total)
            sums.add(*sampled(layer, x, t, share=share, generator=generator))
        return sums.result()

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

    def _advance(self, position: int) -> None:
        """Keep the tensors of the last cut up to `position` that fits into memory."""
        for cut in range(position, self.at, -1):
            names = self.pieces.crossing(cut)
            size = sum(self.sizes.get(name, 0) for name in names)
            if 2 * size * self._batch_count() <= self.budget:
                break
        else:
            return
        floats, quantized = self._run(names), self._run_quantized(names)
        kept = self.kept
        moved: list[tuple[Tensors, Tensors]] = []
        for at, (before, after) in enumerate(self._batches()):
            # Until the first layer is solved both paths are one.
            one = floats(before)
            moved.append((one, quantized(after) if self.replaced or self.rounded else one))
            if kept is not None:
                kept[at] = ({}, {})
        self.kept, self.at = moved, cut

    def _run_quantized(self, names: Sequence[str]) -> Callable[[Tensors], Tensors]:
        return self._run(names, self.replaced, self.rounded)

    def _run(
        self,
        names: Sequence[str],
        weights: Mapping[str, Array] | None = None,
        rounded: Mapping[str, Rounded] | None = None,
    ) -> Callable[[Tensors], Tensors]:
        """What computes these tensors from those that are kept."""
        available = self.pieces.crossing(self.at)
        missing = [name for name in dict.fromkeys(names) if name not in available]
        session: Session | None = None
        inputs: tuple[str, ...] = ()
        if missing:
            piece, inputs = self.pieces.extract(available, missing, weights=weights or {}, rounded=rounded)
            session = open_session(piece, threads=self.threads)

        def run(kept: Tensors) -> Tensors:
            found = {name: kept[name] for name in names if name in available}
            return found if session is None else found | session.run({name: kept[name] for name in inputs})

        return run

    def _batches(self) -> Any:  # noqa: ANN401
        """Float and quantized tensors at the cut, batch by batch."""
        if self.kept is not None:
            yield from self.kept
            return
        name = self.model.input.name
        for number, part in enumerate(self.images.batches(self.batch, limit=self.limit)):
            if not (self.fixed and (len(part.x) < self.batch or number >= self.count)):
                yield {name: part.x}, {name: self._rounded_input(part.x)}

    def _rounded_input(self, x: Array) -> Array:
        if self.model.input.name not in self.rounded:
            return x
        scale, low, high = self.rounded[self.model.input.name]
        return np.clip(np.rint(x / np.float32(scale)), low, high).astype(np.float32) * np.float32(scale)

    def _batch_count(self) -> int:
        return self.count if self.fixed else -(-self.count // self.batch)

    def _sizes(self) -> dict[str, int]:
        """Bytes of each computed tensor for one batch, by running the float network on the first."""
        name = self.model.input.name
        x = next(iter(self.images.batches(self.batch if self.fixed else 1, limit=self.limit))).x
        numeric = [tensor for tensor in self.pieces.computed() if self._has_size(tensor)]
        piece, inputs = self.pieces.extract([name], numeric, weights={})
        found = open_session(piece, threads=self.threads).run({name: x} if name in inputs else {})
        times = 1 if self.fixed else self.batch
        return {name: x.nbytes * times} | {tensor: value.nbytes * times for tensor, value in found.items()}

    def _has_size(self, tensor: str) -> bool:
        return self.model.values[tensor].dtype is not None

"""The pass over the network, layer by layer, each seeing what the already quantized layers before it really give.

Two networks run side by side over the calibration images: the float one says what a layer's output should be (t), the
quantized one what the layer gets (x). What their tensors held at the last cut is kept for all images, and each layer's
inputs are computed from there. Where a cut is small enough it becomes the next place to start from; where cuts are
large (the wide tensors inside a MobileNet block), several layers are computed from the last small one. A cut that is
small enough only as codes or in half precision is kept so: EfficientNet-Lite0 is run half as long for it. The float
network does not wait for solutions: one run of it from cut to cut gives the targets of all layers between, at the
positions that are looked at and no others, while the layers before are solved. So the whole pass costs one run of the
float network and two or three of the quantized one. With many images even small cuts may not fit: then the images
themselves stay the cut, and memory is bounded at the price of time.

Batches are shared by threads, with one thread of the runtime each, and what they give is added up in their order, so
that the number of threads does not change the result.

A convolution whose output goes straight into a sum is aimed at the float *sum*, less what the other branch now gives
(the shortcut's error is made good here, before it can travel on; compare the block-wise targets of Li et al. 2021,
"BRECQ").
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.batches import Batches
from lowbit.calibration.moments import Moments, MomentSums, Targets, columns_at, rows_at, targets
from lowbit.data.dataset import Dataset
from lowbit.engines import open_session
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers, single_consumer
from lowbit.graph.subgraph import ActivationGrid, Subgraphs
from lowbit.processor import cores, give_back_memory, in_order
from lowbit.quantization.passes.frontier import Frontier, Kept, Tensors, compact_share, compacted, on_grids
from lowbit.quantization.solving.effort import Effort

WIDEST = 4608  # columns whose second moment is worth its memory (162 MB in float64)
# Columns from which a layer's products fill the memory (85 MB for each batch on its way at 4608): the system gets back
# what others left before, and none are made ahead.
WIDE = 1024
HALVED = 2304  # columns up to which moments of both halves are kept: three times H
BATCH = 4  # images per run; twice as many cost 100 MB and gain little
MEMORY = 96 << 20  # bytes of activations kept between layers
# Bytes kept at a cut from which on the system gets back what runs before left: each thread keeps what it freed. With
# smaller cuts that took a tenth longer.
LARGE_CUT = 32 << 20
HELD = 24 << 20  # bytes of targets that one run of the float network leaves, unless a single layer needs more
FEWEST_POSITIONS = 16384  # of a layer's input that moments are taken from, if there are as many
SEED = 0  # decides which positions moments are taken from

Array = np.ndarray[Any, np.dtype[Any]]


class LayerwisePass:
    """Layers in execution order, each with the moments of what the quantized layers before it give it.

    for layer, moments in run:
        run.replace(layer, weight, bias)

    A layer that is not replaced stays float. Weights are forgotten as soon as no later layer reads them.

    Args:
        model: the prepared float model.
        data: calibration samples; labels are not used.
        nodes: names of the layers to look at; all others stay float.
        effort: how many images, and how many positions of them for each column of a layer's matrix.
        grids: grids of the activations that the quantized network rounds.
        threads: that share the samples; 0 takes as many as there are cores.

    Attributes:
        biases: new values of the biases, by initializer name.

    Raises:
        DataError: there are too few samples for one run.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        nodes: Collection[str],
        effort: Effort,
        *,
        grids: Mapping[str, ActivationGrid] | None = None,
        threads: int = 0,
    ) -> None:
        self.model = model
        self.todo = [layer for layer in layers(model) if layer.node in set(nodes)]
        self.biases: dict[str, npt.NDArray[np.float32]] = {}
        self._positions = effort.positions
        self._pieces = Subgraphs(model)
        self._batches = Batches(model, data.subset(min(effort.images, data.count)), BATCH)
        self._threads = threads or cores()
        self._bytes = self._tensor_bytes()
        self._replaced: dict[str, npt.NDArray[np.float32]] = {}
        self._bias_readers = Counter(layer.bias for layer in layers(model))
        give_back_memory()
        self._grids = grids = grids or {}
        self._float = Frontier(self._pieces, _Inputs(self._batches, {}), threads=self._threads)
        self._quantized = Frontier(self._pieces, _Inputs(self._batches, grids), threads=self._threads, grids=grids)

    def __len__(self) -> int:
        return len(self.todo)

    def __iter__(self) -> Iterator[tuple[Layer, Moments]]:
        stretches = self._stretches()
        with ThreadPoolExecutor(1, thread_name_prefix="lowbit-float") as beside:
            ahead: Future[dict[str, list[Targets]]] | None = None
            for stretch, following in zip_longest(stretches, stretches[1:]):
                targets_of = ahead.result() if ahead else self._run_float(stretch)
                ahead = None
                if self._bytes_at(stretch.cut, compact=self._compact(stretch.cut)) > LARGE_CUT:
                    give_back_memory()
                self._advance(stretch.cut)
                for layer in stretch.layers:
                    moments = self._moments(layer, targets_of.pop(layer.node))
                    # Samples are read by one thread at a time: who brings them may not expect more.
                    if ahead is None and following is not None and self._float.position > 0:
                        ahead = beside.submit(self._run_float, following)
                    yield layer, moments
                    del moments
        give_back_memory()

    def begin_with(self, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """What the quantized network computes with from the start: decoded weights of what is no layer, by name."""
        self._replaced |= weights

    def replace(
        self, layer: Layer, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32] | None = None
    ) -> None:
        """What a solved layer computes with from now on.

        Args:
            layer: the layer that the pass has come to.
            weight: decoded, in the stored shape.
            bias: corrected [output channels]; None leaves it, and so does a bias that other layers read too.
        """
        self._replaced[layer.weight] = weight
        if bias is not None and layer.bias is not None and self._owns_bias(layer):
            stored = bias.reshape(self.model.weights[layer.bias].shape)  # an Add takes [1, 1, channels] as well
            self._replaced[layer.bias] = self.biases[layer.bias] = stored

    def _owns_bias(self, layer: Layer) -> bool:
        return layer.bias is not None and self._bias_readers[layer.bias] == 1

    def _moments(self, layer: Layer, targets_of: Sequence[Targets]) -> Moments:
        """Moments of the layer's inputs in the quantized network with the wanted outputs, those of each batch."""
        if layer.columns >= WIDE:
            give_back_memory()
        shortcut = self._shortcut(layer)
        names = [layer.input] + ([shortcut] if shortcut else [])
        run = self._quantized.runner(names, weights=self._replaced)

        def columns_and_rows(batch: tuple[int, Kept]) -> tuple[Array, Array]:
            number, kept = batch
            tensors, target = run(kept), targets_of[number]
            t = target.rows
            if shortcut and target.summed:
                t = t - rows_at(layer, tensors[shortcut], target.keep)
            return columns_at(layer, tensors[layer.input], target), t

        sums = MomentSums(
            self._owns_bias(layer),
            with_second=layer.columns <= WIDEST,
            with_power=shortcut is None,  # of a sum's parts one alone does not say how much they vary together
            with_halves=layer.columns <= HALVED,
        )
        batches = enumerate(self._quantized.batches())
        sums.add(*columns_and_rows(next(batches)))
        ahead = 1 if layer.columns < WIDE else 0
        all_products = in_order(
            lambda batch: sums.products(*columns_and_rows(batch)), batches, threads=self._threads, ahead=ahead
        )
        for products in all_products:
            sums.merge(products)
            del products  # as large as H
        return sums.result()

    def _stretches(self) -> list["_Stretch"]:
        """The layers by the cuts that they are computed from."""
        stretches: list[_Stretch] = []
        cut = first = 0
        while first < len(self.todo):
            cut = self._cut(self.todo[first], cut)
            last = self._end_of_stretch(first, cut)
            following = self._cut(self.todo[last], cut) if last < len(self.todo) else cut
            stretches.append(_Stretch(self.todo[first:last], cut, following))
            first = last
        return stretches

    def _end_of_stretch(self, first: int, cut: int) -> int:
        """The first layer behind those that share a cut and whose targets fit into memory together."""
        last, held = first + 1, self._target_bytes(self.todo[first])
        while last < len(self.todo) and self._cut(self.todo[last], cut) == cut:
            held += self._target_bytes(self.todo[last])
            if held > HELD:
                break
            last += 1
        return last

    def _advance(self, cut: int) -> None:
        """Move the quantized network to a cut."""
        if cut > self._quantized.position:
            self._quantized.advance(cut, weights=self._replaced, compact=self._compact(cut))
            read = self._pieces.read_from(cut)
            self._replaced = {name: value for name, value in self._replaced.items() if name in read}

    def _run_float(self, stretch: "_Stretch") -> dict[str, list[Targets]]:
        """Run the float network up to the next cut; of each layer on the way, the targets of each batch, by node."""
        following, todo = stretch.following, stretch.layers
        moves, compact = following > self._float.position, self._compact(following)
        kept_names = self._pieces.crossing(following) if moves else ()
        shortcuts = {layer.node: self._shortcut(layer) for layer in todo}
        outputs = [layer.output for layer in todo] + [name for name in shortcuts.values() if name]
        run = self._float.runner([*outputs, *kept_names])

        def targets_and_kept(batch: tuple[int, Kept]) -> tuple[list[Targets], Kept]:
            number, kept = batch
            tensors = run(kept)
            result = []
            for layer in todo:
                t, other = tensors[layer.output], tensors.get(shortcuts[layer.node] or "")
                generator = np.random.default_rng((SEED, number))
                # What is the same for all samples has one row in all.
                wanted = t if other is None or other.shape != t.shape else t + other
                found = targets(layer, wanted, share=self._share(layer), generator=generator)
                result.append(replace(found, summed=wanted is not t))
            at_cut = {name: tensors[name] for name in kept_names}
            return result, compacted(at_cut, {}) if compact else at_cut

        targets_of: dict[str, list[Targets]] = {layer.node: [] for layer in todo}
        batches = enumerate(self._float.batches(last=moves))
        kept_at_cut: deque[Kept] = deque()
        for batch_targets, kept in in_order(targets_and_kept, batches, threads=self._threads, ahead=0):
            for layer, target in zip(todo, batch_targets, strict=True):
                targets_of[layer.node].append(target)
            kept_at_cut.append(kept)
        if moves:
            self._float.keep(following, kept_at_cut)
        return targets_of

    def _share(self, layer: Layer) -> float:
        """Share of the layer's positions that its moments are taken from."""
        total = self._output_positions(layer)
        return min(1.0, max(FEWEST_POSITIONS, self._positions * layer.columns) / total)

    def _output_positions(self, layer: Layer) -> int:
        """Positions of the layer's output in all images."""
        return max(1, self._bytes[layer.output] // (4 * layer.out_channels) * len(self._batches))

    def _target_bytes(self, layer: Layer) -> int:
        return round(self._share(layer) * self._output_positions(layer)) * layer.out_channels * 4

    def _shortcut(self, layer: Layer) -> str | None:
        """The other branch of the sum that the layer's output goes straight into, if it is computed before."""
        add = single_consumer(self.model, layer.output)
        if add is None or add.op_type != "Add" or add.domain not in ("", "ai.onnx") or layer.bias_node is not None:
            return None
        names = [str(value.name) for value in add.inputs if value is not None]
        if layer.output not in names or len(set(names)) != 2:
            return None
        other = names[1 - names.index(layer.output)]
        at = self._pieces.produced_by(other)
        same = self._bytes.get(other) is not None and self._bytes.get(other) == self._bytes.get(layer.output)
        return other if same and 0 <= at < self._pieces.position(layer.node) else None

    def _cut(self, layer: Layer, kept: int) -> int:
        """The last cut up to the layer that fits into memory; where there is none, the one that is kept already."""
        for cut in range(self._pieces.position(layer.node), kept, -1):
            if self._bytes_at(cut, compact=True) <= MEMORY:
                return cut
        return kept

    def _compact(self, cut: int) -> bool:
        """Whether what both networks keep at a cut fits into memory in fewer bytes only."""
        return self._bytes_at(cut, compact=False) > MEMORY

    def _bytes_at(self, cut: int, *, compact: bool) -> float:
        """Bytes that both networks keep at a cut."""
        names = self._pieces.crossing(cut)
        shares = (compact_share(None) + compact_share(self._grids.get(name)) if compact else 2.0 for name in names)
        sizes = (self._bytes.get(name, 0) for name in names)
        return len(self._batches) * sum(share * size for share, size in zip(shares, sizes, strict=True))

    def _tensor_bytes(self) -> dict[str, int]:
        """Bytes of each computed tensor for one batch, by running the float network on the first sample or run."""
        batch = next(iter(self._batches))
        batch = batch if self._batches.fixed else batch.part(0, 1)
        needed = {layer.output for layer in self.todo}
        numeric = [
            tensor
            for tensor in self._pieces.computed()
            if tensor in needed or self.model.values[tensor].dtype is not None
        ]
        piece, inputs = self._pieces.extract(list(batch.inputs), numeric, weights={})
        tensors = open_session(piece, threads=1).run({name: batch.inputs[name] for name in inputs})
        times = 1 if self._batches.fixed else self._batches.size
        return {name: value.nbytes * times for name, value in {**batch.inputs, **tensors}.items()}


@dataclass(frozen=True)
class _Stretch:
    """Layers that are computed from the same cut, with targets that fit into memory together.

    Attributes:
        layers: in execution order.
        cut: the position that they are computed from.
        following: that of the next stretch.
    """

    layers: Sequence[Layer]
    cut: int
    following: int


@dataclass(frozen=True)
class _Inputs:
    """Each batch's inputs as a frontier's tensors, rounded to the grids of those that have one."""

    batches: Batches
    grids: Mapping[str, ActivationGrid]

    def __iter__(self) -> Iterator[Tensors]:
        for batch in self.batches:
            yield on_grids(batch.inputs, self.grids)

"""How far a quantized network is from the float one: what decides whether a step is kept.

Closeness is measured, not assumed: the file is written, run on images that nothing was fitted to, and its answers are
compared with the float model's; where the file would only unpack weights, the network runs with what they unpack to.

- A classifier (one output [images, classes]) is judged by the mean KL divergence of its answers. It is sure of the
  images that it was trained on, and its softmax then hides all but the grossest errors: logits are first divided by
  their mean standard deviation, so that every image has a say (temperature; Hinton et al. 2015, "Distilling the
  knowledge in a neural network").
- Any other network is judged by the squared error of all its float outputs, relative to the variance of each channel of
  each output, in the mean: of a detector scores count as much as boxes, though these are a hundred times larger.

Both are taken image by image, and a step is kept if its gain is larger than its standard error over the images: of two
files whose difference is chance the simpler one is kept.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.batches import Batches
from lowbit.calibration.divergence import BATCH_SIZE, kl_by_image
from lowbit.data.images import Images
from lowbit.engines import open_session
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import LightModel, Model
from lowbit.graph.subgraph import Subgraphs
from lowbit.processor import give_back_memory
from lowbit.quantization.passes.candidate import DecodedWeights

JUDGING_SHARE = 5  # one image in so many judges
FEWEST_JUDGING = 20
LEAST = 1e-12  # distance that counts as none
MOST_JUDGING = 64  # more would hardly change a verdict
FEWEST_IMAGES = 48  # of which some are set apart to judge; of fewer all fit and all judge
KEPT_BYTES = 64 << 20  # of the float model's answers
LEAST_VARIANCE = 0.01  # of a channel, relative to the mean of its output's channels
KL, RELATIVE_ERROR, NOT_JUDGED = "KL", "relative squared error", "not judged"

Array = np.ndarray[Any, np.dtype[Any]]
Doubles = npt.NDArray[np.float64]


def fitting_and_judging(model: Model, images: Images) -> tuple[Images, Images]:
    """The images that a network is fitted to, and those that judge; all of them twice if there are too few."""
    batch = model.fixed_batch or 1
    count = max(FEWEST_JUDGING, min(MOST_JUDGING, images.count // JUDGING_SHARE))
    count = -(-count // batch) * batch
    if images.count < FEWEST_IMAGES or images.count - count < max(batch, count):
        return images, images
    return images.apart(count)


@dataclass(frozen=True)
class Distances:
    """How far answers are from the float model's, image by image.

    Attributes:
        values: KL divergence in nats, or relative squared error, [images]; infinite where an answer is no number. Empty
            where nothing can be judged.
    """

    values: Doubles

    @property
    def mean(self) -> float:
        """Over the images; infinite if one is, and 0 where nothing can be judged."""
        return float(self.values.mean()) if self.values.size else 0.0

    def closer_than(self, other: "Distances", *, tolerance: float = 1.0) -> bool:
        """Whether these are less than `tolerance` times the other ones, on the same images, and it is not chance.

        Two paired tests: of the mean difference, which a few images can decide, and of the mean logarithm of the ratio,
        for which every image counts alike. One has to gain more than its standard error, and the other must not lose. A
        tolerance above 1 gives these the benefit of the doubt: then means alone decide, and where nothing can be judged
        they count as closer.
        """
        if not self.values.size:
            return tolerance > 1
        if not (math.isfinite(self.mean) and math.isfinite(other.mean)):
            return math.isfinite(self.mean)
        if tolerance > 1:
            return self.mean < tolerance * other.mean
        ratio = np.log(np.maximum(self.values, LEAST) / np.maximum(tolerance * other.values, LEAST))
        gains = (_in_errors(self.values - tolerance * other.values), _in_errors(ratio))
        return min(gains) < -1 and max(gains) < 0


def _in_errors(differences: Doubles) -> float:
    """The mean in units of its standard error; infinite, with its sign, where all are the same."""
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0


class Validation:
    """The float model's answers on images that judge.

    Args:
        model: the prepared float model.
        images: labels are not used.
        threads: threads of the runtime; 0 leaves it to the runtime.

    Attributes:
        measure: `KL`, `RELATIVE_ERROR`, or `NOT_JUDGED` where no output has something for each image.
    """

    def __init__(self, model: Model, images: Images, *, threads: int = 0) -> None:
        self._model, self._threads = model, threads
        self._images = images.subset(min(images.count, MOST_JUDGING))
        self._reference = self._answers(model.light())
        self.measure, self._temperature = RELATIVE_ERROR, 1.0
        if not self._reference:
            self.measure = NOT_JUDGED
        elif are_classes(self._reference):
            (logits,) = self._reference.values()
            self.measure, self._temperature = KL, max(1.0, float(logits.reshape(len(logits), -1).std(axis=1).mean()))

    def distances(self, graph: QuantizedGraph) -> Distances:
        """From the answers of the file that a graph would be written as."""
        if self.measure == NOT_JUDGED:
            return Distances(np.zeros(0))
        answers = self._answers(_runnable(graph))
        if self.measure == KL:
            ((name, reference),) = self._reference.items()
            rows, given = (len(reference), -1), answers.get(name, np.full_like(reference, np.nan))
            values = kl_by_image(reference.reshape(rows) / self._temperature, given.reshape(rows) / self._temperature)
        else:
            values = relative_errors(self._reference, answers)
        return Distances(np.where(np.isfinite(values), values, math.inf))

    def _answers(self, content: bytes | LightModel) -> dict[str, Array]:
        """Every float output (every output if none is) that `per_image` finds something for each image in."""
        session = open_session(content, threads=self._threads)
        parts: dict[str, list[Array]] = {}
        sizes: list[int] = []
        held = 0
        for x in self._batches():
            outputs = session.run({self._model.input.name: x})
            for name in self._judged_outputs(outputs):
                parts.setdefault(name, []).append(np.asarray(outputs[name], np.float32))
                held += parts[name][-1].nbytes
            sizes.append(len(x))
            if held > KEPT_BYTES:  # large answers say much already
                break
        give_back_memory()
        return per_image(parts, sizes)

    def _batches(self) -> Iterator[Array]:
        """The images, the first alone: what mixes images shows by its shape."""
        batches = iter(Batches(self._model, self._images, BATCH_SIZE))
        if self._model.fixed_batch is None and (first := next(batches, None)) is not None:
            yield from (first[:1], first[1:]) if len(first) > 1 else (first,)
        yield from batches

    def _judged_outputs(self, outputs: Mapping[str, Array]) -> list[str]:
        names = [output.name for output in self._model.outputs]
        return [name for name in names if outputs[name].dtype.kind == "f"] or names


def per_image(parts: Mapping[str, Sequence[Array]], sizes: Sequence[int]) -> dict[str, Array]:
    """Tensors that have as much for each image, of all images.

    One whose rows are those of all images of a batch comes as [images, rows, ...]. What is behind a NonMaxSuppression,
    sums up a batch, or compares images with each other, is left out.

    Args:
        parts: by name, what each batch gave.
        sizes: images of each batch.
    """
    found: dict[str, Array] = {}
    for name, given in parts.items():
        rows = {len(part) / size if part.ndim else 0.0 for part, size in zip(given, sizes, strict=True)}
        if len(rows) > 1 or len({part.shape[1:] for part in given}) > 1:
            continue
        (each,) = rows
        if each == 1:
            found[name] = np.concatenate(given)
        elif each > 1 and each.is_integer():
            found[name] = np.concatenate([part.reshape(-1, int(each), *part.shape[1:]) for part in given])
    return found


def are_classes(outputs: Mapping[str, Array]) -> bool:
    """Whether the only output has one score for each of several classes."""
    first = next(iter(outputs.values()))
    return len(outputs) == 1 and first.ndim >= 2 and first.shape[1] > 1 and first[0].size == first.shape[1]


def relative_errors(wanted: Mapping[str, Array], given: Mapping[str, Array]) -> Doubles:
    """Squared error of all outputs, each relative to its channels' variance, in the mean over outputs [images].

    An output that is missing or of another shape is infinitely far.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        errors = [_relative_error(values, given.get(name)) for name, values in wanted.items()]
        return np.asarray(np.mean(errors, axis=0))


def _relative_error(wanted: Array, given: Array | None) -> Doubles:
    """Squared error relative to each channel's variance, in the mean over channels and positions [images]."""
    if given is None or wanted.shape != given.shape:
        return np.full(len(wanted), math.inf)
    if wanted.ndim == 1:  # a number for each image is one channel
        wanted, given = wanted[:, None], given[:, None]
    channels = 1 if wanted.ndim > 3 else -1
    wanted, given = np.moveaxis(wanted, channels, -1), np.moveaxis(given, channels, -1)
    variance = wanted.reshape(-1, wanted.shape[-1]).var(axis=0, dtype=np.float64)
    variance = np.maximum(variance, max(LEAST_VARIANCE * variance.mean(), float(np.finfo(np.float32).tiny)))
    error = np.square(wanted.astype(np.float64) - given) / variance
    return np.asarray(error.reshape(len(error), -1).mean(axis=1))


def _runnable(graph: QuantizedGraph) -> bytes | LightModel:
    """What answers as the file does: the file, or, where it only unpacks weights, the float graph with these weights.

    Runtimes unpack such a file into the same floats while they load it, and hold what is in between as well: 1.9 GB for
    the 87 million weights of a ViT-B, four times what the weights take here.
    """
    if graph.integer or graph.byte_input is not None:
        return to_onnx(graph)
    outputs = [output.name for output in graph.model.outputs]
    weights = DecodedWeights(graph.float_values, graph.weights)
    return Subgraphs(graph.model).extract([graph.model.input.name], outputs, weights=weights)[0]

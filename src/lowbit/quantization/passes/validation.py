"""How far a quantized network is from the float one: what decides whether a step is kept.

Closeness is measured, not assumed: the file is written, run on images that nothing was fitted to, and its answers are
compared with the float model's; where the file would only unpack weights, the network runs with what they unpack to.

- A classifier (one output [images, classes]) is judged by the mean KL divergence of its answers, its logits first
  divided by their mean standard deviation, so that every image has a say (`calibration.answers.fair_temperature`).
  Where it gives probabilities, its logits are their logarithms.
- Any other network is judged by the squared error of all its float outputs, relative to the variance of each channel of
  each output, in the mean: of a detector scores count as much as boxes, though these are a hundred times larger.

Both are taken image by image, and a step is kept if its gain is larger than its standard error over the images: of two
files whose difference is chance the simpler one is kept.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.answers import Answer, are_classes, distances, fair_temperature, float_answers
from lowbit.calibration.batches import samples_per_run
from lowbit.data.dataset import Dataset
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.light_model import LightModel
from lowbit.graph.model import Model
from lowbit.graph.subgraph import Subgraphs
from lowbit.processor import give_back_memory
from lowbit.quantization.passes.candidate import DecodedWeights

JUDGING_SHARE = 5  # one image in so many judges
FEWEST_JUDGING = 20
LEAST = 1e-12  # distance that counts as none
MOST_JUDGING = 64  # more would hardly change a verdict
FEWEST_IMAGES = 48  # of which some are set apart to judge; of fewer all fit and all judge
KEPT_BYTES = 64 << 20  # of the float model's answers
KL, RELATIVE_ERROR, NOT_JUDGED = "KL", "relative squared error", "not judged"

Array = np.ndarray[Any, np.dtype[Any]]
Doubles = npt.NDArray[np.float64]


def fitting_and_judging(model: Model, data: Dataset) -> tuple[Dataset, Dataset]:
    """The samples that a network is fitted to, and those that judge; all of them twice if there are too few."""
    batch = samples_per_run(model, data) or 1
    count = max(FEWEST_JUDGING, min(MOST_JUDGING, data.count // JUDGING_SHARE))
    count = -(-count // batch) * batch
    if data.count < FEWEST_IMAGES or data.count - count < max(batch, count):
        return data, data
    return data.apart(count)


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
        data: labels are not used.
        threads: threads of the runtime; 0 leaves it to the runtime.

    Attributes:
        measure: `KL`, `RELATIVE_ERROR`, or `NOT_JUDGED` where no output has something for each image.
    """

    def __init__(self, model: Model, data: Dataset, *, threads: int = 0) -> None:
        self._model, self._threads = model, threads
        self._data = data.subset(min(data.count, MOST_JUDGING))
        self._reference = self._answers(model.light())
        self.measure, self._temperature = RELATIVE_ERROR, 1.0
        if not self._reference:
            self.measure = NOT_JUDGED
        elif are_classes(self._reference):
            self.measure, self._temperature = KL, fair_temperature(self._reference)

    def distances(self, graph: QuantizedGraph) -> Distances:
        """From the answers of the file that a graph would be written as."""
        return self.distances_of(runnable(graph))

    def distances_of(self, content: bytes | LightModel) -> Distances:
        """From the answers of what is `runnable`, which may be judged by several."""
        if self.measure == NOT_JUDGED:
            return Distances(np.zeros(0))
        answers = self._answers(content)
        values = distances(self._reference, answers, temperature=self._temperature)
        return Distances(np.where(np.isfinite(values), values, math.inf))

    def _answers(self, content: bytes | LightModel) -> dict[str, Answer]:
        answers = float_answers(content, self._model, self._data, threads=self._threads, most_bytes=KEPT_BYTES)
        give_back_memory()
        return answers


def runnable(graph: QuantizedGraph) -> bytes | LightModel:
    """What answers as the file does: the file, or, where it only unpacks weights, the float graph with these weights.

    Runtimes unpack such a file into the same floats while they load it, and hold what is in between as well: 1.9 GB for
    the 87 million weights of a ViT-B, four times what the weights take here.
    """
    if graph.integer or graph.dynamic or graph.byte_input is not None:
        return to_onnx(graph)
    outputs = [output.name for output in graph.model.outputs]
    weights = DecodedWeights(graph.float_values, graph.weights)
    return Subgraphs(graph.model).extract([info.name for info in graph.model.inputs], outputs, weights=weights)[0]

"""How far a quantized network is from the float one: what decides whether a step is kept.

Closeness is measured, not assumed: the file is written, run on validation images, and the mean KL divergence of its
answers from the float model's is taken; where the file would only unpack weights, the network runs with what they
unpack to. A network is sure of the images that it was trained on, and its softmax then hides all but the grossest
errors: logits are first divided by their mean standard deviation, so that every image has a say (temperature; Hinton et
al. 2015, "Distilling the knowledge in a neural network").
"""

import math

from lowbit.calibration.divergence import answers, mean_kl
from lowbit.data.images import Images
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import LightModel, Model
from lowbit.graph.subgraph import Subgraphs
from lowbit.processor import give_back_memory
from lowbit.quantization.passes.candidate import DecodedWeights

VALIDATION_IMAGES = 256  # more would hardly change a verdict


class Validation:
    """The float model's answers on validation images.

    Args:
        model: the prepared float model.
        images: calibration images, of which some are taken; labels are not used.
        most: maximum number of images.
        threads: threads of the runtime; 0 leaves it to the runtime.
    """

    def __init__(self, model: Model, images: Images, *, most: int = VALIDATION_IMAGES, threads: int = 0) -> None:
        self._model = model
        self._images = images.subset(min(VALIDATION_IMAGES, most))
        self._threads = threads
        reference = answers(model.light(), model, self._images, limit=VALIDATION_IMAGES, threads=threads)
        give_back_memory()
        self._temperature = max(1.0, float(reference.std(axis=1).mean()))
        self._reference = reference / self._temperature

    def kl(self, graph: QuantizedGraph) -> float:
        """Mean KL from float in nats; infinite where the answers are no numbers."""
        outputs = answers(_runnable(graph), self._model, self._images, limit=VALIDATION_IMAGES, threads=self._threads)
        give_back_memory()
        kl = mean_kl(self._reference, outputs / self._temperature)
        return kl if math.isfinite(kl) else math.inf


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

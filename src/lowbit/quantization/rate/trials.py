"""What the passes of a search gave: each archive written, weighed, and measured against the float model."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.answers import Answer, are_classes, distances, float_answers
from lowbit.certainty.certificate import certify
from lowbit.certainty.paired import Paired, counted
from lowbit.data.dataset import Dataset
from lowbit.errors import SchemeError
from lowbit.formats.onnx import archive
from lowbit.formats.onnx.minify import shortened
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.weights import all_weights
from lowbit.quantization.passes.validation import KL, MOST_JUDGING, NOT_JUDGED, RELATIVE_ERROR
from lowbit.quantization.quantized import Quantized
from lowbit.quantization.rate.goal import CONFIDENCE
from lowbit.quantization.rate.packed import Packed, Trial

Array = np.ndarray[Any, np.dtype[Any]]


class Trials:
    """The trials of one search, and what they are measured on.

    Args:
        model: the float model.
        judging: calibration samples that judge, on which trials are measured where there are no others.
        data: evaluation samples; None if there are none.
        short_names: whether inner tensors are renamed.
        threads: threads of the runtime; 0 leaves it to the runtime.

    Attributes:
        records: of all trials so far.
        max_drop: points whose drop is certified, if any.
        confidence: of these certificates.
    """

    def __init__(
        self, model: Model, judging: Dataset, data: Dataset | None, *, short_names: bool, threads: int
    ) -> None:
        self.model, self.data, self.short_names, self.threads = model, data, short_names, threads
        self.measured_on = judging.subset(min(MOST_JUDGING, judging.count)) if data is None else data
        self.records: list[Trial] = []
        self.max_drop: float | None = None
        self.confidence = CONFIDENCE

    @cached_property
    def weights(self) -> int:
        """Number of weights in the model."""
        return sum(self.model.weights[name].size for name in {weight.weight for weight in all_weights(self.model)})

    @cached_property
    def reference(self) -> Mapping[str, Answer]:
        """The float model's answers on what trials are measured on."""
        return float_answers(self.model.light(), self.model, self.measured_on, threads=self.threads)

    @property
    def measure(self) -> str:
        """What distances are: KL for a classifier, else relative squared error."""
        if not self.reference:
            return NOT_JUDGED
        return KL if are_classes(self.reference) else RELATIVE_ERROR

    def require_classes(self) -> None:
        """Refuse a network without class scores, whose predictions cannot be counted.

        Raises:
            SchemeError: it has other outputs.
        """
        if self.measure != KL:
            raise SchemeError(
                "points lost are counted by class scores [samples, classes], and the network has other outputs.",
                where=self.model.source,
                remedy="Ask for a size or for bits per weight, or let `lowbit search --out FILE.lowbit` find one.",
            )

    def content(self, graph: QuantizedGraph) -> bytes:
        """The ONNX file."""
        content = to_onnx(graph)
        return shortened(content) if self.short_names else content

    def size(self, graph: QuantizedGraph) -> int:
        """Bytes of the archive of a network."""
        return len(archive.pack(self.content(graph)))

    def measured(self, quantized: Quantized, multiplier: float | None) -> Packed:
        """The archive of a quantized network, weighed and measured."""
        content = self.content(quantized.graph)
        packed = archive.pack(content)
        answers = float_answers(content, self.model, self.measured_on, threads=self.threads) if self.reference else {}
        lost = certificate = None
        if self.data is not None and self.measure == KL:
            before, after = (_scores(each, self.reference) for each in (self.reference, answers))
            paired = compared(before, after, self.data.labels)
            lost = 100 * paired.drop
            if self.max_drop is not None:
                certificate = certify(paired, self.max_drop / 100, confidence=self.confidence)
        record = Trial(
            quantized.graph.metadata["lowbit.recipe"],
            multiplier,
            len(packed),
            8 * len(packed) / max(1, self.weights),
            float(distances(self.reference, answers).mean()) if self.reference else None,
            self.measure,
            lost,
            certificate,
        )
        self.records.append(record)
        return Packed(packed, content, quantized, (record,))


def compared(reference: Array, outputs: Array, labels: npt.NDArray[np.int64] | None) -> Paired:
    """What a file loses and gains, or which predictions changed where there are no labels.

    Args:
        reference: the float model's class scores [samples, classes].
        outputs: those of a file; a row that is not finite is no prediction.
        labels: [samples] or more, of which those of a last run that was not full are not looked at.
    """
    before, after = reference.argmax(axis=1), outputs.argmax(axis=1)
    after = np.where(np.isfinite(outputs).all(axis=1), after, -1)
    return counted(before, after, None if labels is None else labels[: len(before)])


def _scores(answers: Mapping[str, Answer], reference: Mapping[str, Answer]) -> Array:
    ((name, wanted),) = reference.items()
    return np.asarray(answers[name]).reshape(len(wanted), -1)

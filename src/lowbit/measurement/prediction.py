"""Run a file on samples and keep all that it answers."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.answers import Answer, by_sample, is_class_scores
from lowbit.data.dataset import Dataset
from lowbit.data.sources import Labels, Targets
from lowbit.engines import fed, open_session
from lowbit.errors import DataError
from lowbit.measurement.inputs import File, as_taken
from lowbit.progress import SILENT, Progress

MEMORY_BYTES = 256 << 20  # of one output; what is larger goes to a temporary file

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Prediction:
    """A classifier's outputs [images, classes] float32, and the labels [images] where there are any."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Answers:
    """All that a file answers.

    Attributes:
        outputs: by name, [samples, ...] each, or a list of arrays where samples have answers of different shapes.
        labels: class numbers int64 [samples], or None.
        targets: what each sample should give, where that is no class number, or None.
        notes: which outputs are left out, and why.
    """

    outputs: Mapping[str, Answer]
    labels: Labels | None = None
    targets: Targets | None = None
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(next(iter(self.outputs.values())))

    @property
    def truth(self) -> Labels | Targets | None:
        """What each sample should give, in whatever form."""
        return self.labels if self.targets is None else self.targets

    @property
    def logits(self) -> NDArray[np.float32]:
        """The first output that has a score for each of several classes, [samples, classes].

        Raises:
            DataError: there is none.
        """
        return self.class_scores().logits

    def class_scores(self) -> Prediction:
        """That output, with the labels."""
        for answer in self.outputs.values():
            if is_class_scores(answer):
                return Prediction(answer.reshape(len(answer), -1), self.labels)
        first, answer = next(iter(self.outputs.items()))
        shape = list(answer.shape[1:]) if isinstance(answer, np.ndarray) else "of different shapes"
        raise DataError(
            f"no output is [samples, classes]: '{first}' has {shape} for each sample.",
            remedy="Name another task with --task, or give a model whose output is [samples, classes].",
        )

    def named_as(self, reference: "Answers") -> "Answers":
        """The same under the float file's names; a file for another engine may name outputs differently, in order."""
        if set(self.outputs) == set(reference.outputs) or len(self.outputs) != len(reference.outputs):
            return self
        outputs = dict(zip(reference.outputs, self.outputs.values(), strict=True))
        return Answers(outputs, self.labels, self.targets, self.notes)


@dataclass(frozen=True)
class Runs:
    """How many samples go into a run.

    Attributes:
        size: at most, or exactly.
        exactly: whether each run takes that many: then the last one is filled up with its own samples.
    """

    size: int = 32
    exactly: bool = False


def predict(
    model: File,
    data: Dataset,
    *,
    engine: str = "onnxruntime",
    runs: Runs = Runs(),
    progress: Progress = SILENT,
    what: str = "predicting",
) -> Answers:
    """Everything that `model` answers to every sample; a file that takes image bytes gets them.

    Args:
        model: an ONNX or LiteRT file.
        data: samples to predict.
        engine: runtime that runs the file.
        runs: how many samples go into a run.
        progress: told after every batch.
        what: what the progress is called.

    Raises:
        EngineError: the runtime refuses the model or the samples.
        DataError: no samples, or no output that has something for each sample.
    """
    data = as_taken(data, model)
    session = open_session(model, engine=engine, threads=0)
    kept: dict[str, _Kept] = {name: _Kept() for name in session.output_names}
    sizes: list[int] = []
    for part in progress.track(data.batches(runs.size), what, total=-(-data.count // runs.size)):
        run = part.filled(runs.size) if runs.exactly else part
        outputs = session.run(fed(session, run.inputs))
        for name, given in outputs.items():
            even = given.ndim > 0 and len(given) % len(run) == 0
            kept[name].add(given[: len(given) // len(run) * len(part)] if even else given)
            kept[name].even &= even or len(run) == 1
        sizes.append(len(part))
    if not sizes:
        raise DataError("there are no images.", remedy="Name a folder that holds images.")
    found: dict[str, Answer] = {}
    missing: tuple[str, ...] = ()
    for name, output in kept.items():
        answer = output.answer(sizes)
        if isinstance(answer, str):
            missing = (*missing, f"Output '{name}' was left out: {answer}")
        else:
            found[name] = answer
    if not found:
        raise DataError(
            "no output has numbers for each sample.",
            remedy=f"Cut the model before what mixes samples. {' '.join(missing)}",
        )
    return Answers(found, data.labels, data.targets, missing)


@dataclass
class _Kept:
    """One output of all runs: in memory or, where it is large, in a temporary file that vanishes with it."""

    parts: list[Array] = field(default_factory=list)
    held: int = 0
    even: bool = True  # whether each sample of a run had as much
    file: IO[bytes] | None = None

    def add(self, part: Array) -> None:
        """What one run gave; floats are kept as float32."""
        part = np.asarray(part, np.float32) if part.dtype.kind == "f" else part
        self.held += part.nbytes
        if self.file is None and self.held > MEMORY_BYTES:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 - until it is mapped
            self.parts = [self._written(each) for each in self.parts]
        self.parts.append(part if self.file is None else self._written(part))

    def _written(self, part: Array) -> Array:
        """A stand-in of the same type and shape, once the part is at the end of the file."""
        assert self.file is not None
        self.file.write(np.ascontiguousarray(part).data)
        return np.broadcast_to(np.zeros((), part.dtype), part.shape)

    def answer(self, sizes: Sequence[int]) -> Answer | str:
        """The output of all samples, or why there is none."""
        if any(part.dtype.kind not in "iufb" for part in self.parts):
            return "it holds no numbers."
        if self.file is not None:
            self.parts, sizes = self._mapped(sizes)
        answer = by_sample(self.parts, sizes) if self.even else None
        return "it has not as much for each sample." if answer is None else answer

    def _mapped(self, sizes: Sequence[int]) -> tuple[list[Array], Sequence[int]]:
        """The parts where they lie in the file, joined if each sample has as many rows."""
        assert self.file is not None
        self.file.flush()
        whole = np.memmap(self.file, np.uint8, mode="r")
        self.file.close()  # it is there as long as it is mapped
        parts, start = [], 0
        for part in self.parts:
            parts.append(whole[start : start + part.nbytes].view(part.dtype).reshape(part.shape))
            start += part.nbytes
        kinds = {
            (len(x) / size, x.shape[1:], x.dtype) if x.ndim else None for x, size in zip(parts, sizes, strict=True)
        }
        kind = next(iter(kinds))
        if len(kinds) > 1 or kind is None:
            return parts, sizes
        return [whole.view(kind[2]).reshape(-1, *kind[1])], [sum(sizes)]

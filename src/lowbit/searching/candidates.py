"""A plan becomes a file, and the file is measured: what a worker does, alone or beside others."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lowbit.data.dataset import Dataset
from lowbit.formats.file_form import FileForm
from lowbit.formats.onnx import archive
from lowbit.formats.onnx.minify import shortened
from lowbit.graph.load import load
from lowbit.graph.model import Model
from lowbit.measurement.exam import Exam
from lowbit.measurement.prediction import Answers
from lowbit.measurement.tasks import Task
from lowbit.printable import brief
from lowbit.progress import SILENT, Progress
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.quantize import follow
from lowbit.quantization.rate.search import Search
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.searching.marks import Marks, marks
from lowbit.searching.rates import Rate


@dataclass(frozen=True)
class Bench:
    """What all candidates of a search have in common.

    Attributes:
        model: the prepared float model.
        calibration: samples that codes are chosen on, in runs of the model; None without any.
        exams: what candidates are measured on: first the samples that choose, then those that certify, if there are.
        archive: whether files are packed into entropy-coded archives.
        short_names: whether inner tensors are renamed.
        threads: that a candidate may use.
    """

    model: Model
    calibration: Dataset | None
    exams: tuple[Exam, ...]
    archive: bool = False
    short_names: bool = False
    threads: int = 0
    _allocating: dict[str, Search] = field(default_factory=dict, repr=False, compare=False)  # by effort

    def allocating(self, effort: str, progress: Progress = SILENT) -> Search:
        """What allocates the bits of archives: what layers' errors cost is measured once for all of them."""
        if effort not in self._allocating:
            assert self.calibration is not None
            self._allocating[effort] = Search(
                self.model, self.calibration, None, EFFORTS[effort], self.short_names, self.threads, progress
            )
        return self._allocating[effort]

    def packed(self) -> "Parcel":
        """The same as plain data, for workers."""
        papers = tuple((exam.data, exam.reference, exam.task) for exam in self.exams)
        known: dict[str, Any] = {"preprocessing": self.model.preprocessing, "source": self.model.source}
        known |= {"precision": self.model.precision, "remarks": self.model.remarks}
        options = (self.archive, self.short_names, self.threads)
        return Parcel(self.model.to_bytes(), known, self.calibration, papers, options)


@dataclass(frozen=True)
class Candidate:
    """A file that was written and measured.

    Attributes:
        name: what it is called, such as `linear8` or `03`.
        choice: recipe by weight; of a uniform recipe empty.
        plan: as it was made; of an archive whose bits were allocated, the widths that came out.
        content: of the file.
        marks: on the samples that choose.
        certified: on the samples that certify; the same marks where all samples do both.
        forecast_bytes: what the menu said; 0 where it was not asked.
        forecast: of the distance; 0 likewise.
        latency_ms: median, None where times do not matter.
        seconds: what making and measuring it took.
        rate: what was asked for in place of a plan, where bits were allocated.
    """

    name: str
    choice: Mapping[str, str]
    plan: Plan
    content: bytes = field(repr=False)
    marks: Marks
    certified: Marks
    forecast_bytes: int = 0
    forecast: float = 0.0
    latency_ms: float | None = None
    seconds: float = 0.0
    rate: Rate | None = None

    def __repr__(self) -> str:
        return f"<Candidate {brief(self.name)}: {self.bytes:,} bytes, distance {self.marks.distance:.2g}>"

    @property
    def bytes(self) -> int:
        """Of the file."""
        return len(self.content)

    @property
    def own(self) -> bool:
        """Whether the search composed it: no uniform recipe."""
        return bool(self.choice) or self.rate is not None

    @property
    def asked(self) -> Plan | Rate:
        """What it was made from."""
        return self.rate or self.plan


@dataclass(frozen=True)
class Made:
    """What a worker gives back."""

    content: bytes
    marks: tuple[Marks, ...]
    plan: Plan | None = None  # of allocated bits: the widths that came out


@dataclass(frozen=True)
class Parcel:
    """A bench as plain data, for workers: graphs do not travel, files do."""

    content: bytes
    known: Mapping[str, Any]
    calibration: Dataset | None
    papers: tuple[tuple[Dataset, Answers, Task], ...]
    options: tuple[bool, bool, int]

    def opened(self) -> Bench:
        """The bench on this worker."""
        model = dataclasses.replace(load(self.content), **self.known)
        return Bench(model, self.calibration, tuple(Exam(model, *paper) for paper in self.papers), *self.options)


def made(bench: Bench, decision: Plan | Rate, progress: Progress = SILENT) -> Made:
    """Follow a plan, or allocate bits, write the file and measure it."""
    if isinstance(decision, Rate):
        allocating = bench.allocating(decision.effort, progress)
        packed = allocating.allocated(decision.most, EFFORTS[decision.effort], filled=decision.filled)
        assert packed.quantized is not None
        found = tuple(marks(exam, packed.content) for exam in bench.exams)
        return Made(packed.archive, found, packed.quantized.plan)
    data = bench.calibration if decision.steps or decision.integer else None
    quantized = follow(bench.model, decision, data, threads=bench.threads, progress=progress)
    content = quantized.to_bytes(FileForm(short_names=bench.short_names))
    found = tuple(marks(exam, content) for exam in bench.exams)
    return Made(archive.pack(content) if bench.archive else content, found)


def file_content(bench: Bench, content: bytes) -> bytes:
    """An ONNX file in the form that candidates have."""
    content = shortened(content) if bench.short_names else content
    return archive.pack(content) if bench.archive else content


def made_from(parcel: Parcel, decision: Plan | Rate) -> Made:
    """The same on a worker."""
    return made(parcel.opened(), decision)

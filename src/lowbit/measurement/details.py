"""What was measured of one file beyond the figures of its row: layer by layer, class by class, step by step.

Units are those of `measurement.results`.
"""

import dataclasses
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LayerRow:
    """One layer in one file. `bytes` and `bits` (mean, per weight) are those of its weights in this file."""

    name: str
    op: str
    macs: int
    bytes: int
    bits: float
    mse: float | None = None
    sqnr_db: float | None = None
    scheme: str = ""
    stays_float: str = ""  # the reason, or empty
    code_bits: float | None = None  # per weight, without scales, zero points and code books


@dataclass(frozen=True)
class Histogram:
    """Float weights of one tensor (or all) counted in `len(edges) - 1` bins, and the code book that replaces them."""

    tensor: str
    edges: tuple[float, ...] = field(repr=False)
    counts: tuple[int, ...] = field(repr=False)
    code_book: tuple[float, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Example:
    """An image that float and this file classify differently; `thumbnail` is a PNG in base64."""

    image: int
    label: str | None
    float_class: str
    quantized_class: str
    thumbnail: str = field(repr=False)


@dataclass(frozen=True)
class Confusion:
    """So many images of one class that a file takes for another, by class number; -1: its outputs are not finite."""

    label: int
    answer: int
    images: int


@dataclass(frozen=True)
class ConfidenceBin:
    """Answers with a confidence between `low` and `high`: how many, their mean confidence, how many are right."""

    low: float
    high: float
    images: int
    confidence: float
    right: int


@dataclass(frozen=True)
class ByClass:
    """A classifier's answers; the first three are counts for each class number.

    Attributes:
        images: labeled as this class.
        answers: answered as this class.
        right: both.
        confusions: wrong answers, the most frequent first, 400 kinds at most.
        bins: by confidence, those that hold images.
    """

    images: tuple[int, ...]
    answers: tuple[int, ...]
    right: tuple[int, ...]
    confusions: tuple[Confusion, ...] = ()
    bins: tuple[ConfidenceBin, ...] = ()


@dataclass(frozen=True)
class Step:
    """One step that quantization tried: how far from float, by `measure`, on images that judge and that it fits."""

    name: str
    before: float | None = None
    after: float | None = None
    fitted: float | None = None
    measure: str = ""
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True)
class OutputRow:
    """One output of a file against the float one's: of floats their distance, of integers how many are the same.

    Attributes:
        name: of the output, as the float file calls it.
        type: of its numbers.
        shape: for one sample, sizes separated by ×; ? where they differ from sample to sample.
        sqnr_db: 10 log10(sum y^2 / sum (y - q)^2); None where exact, or not measured.
        relative_error: squared error over the variance of each channel, at most 1, in the mean over channels.
        agreement: share of integers that are the same.
        differing: samples whose answer has another shape than float's; they are not in the figures.
    """

    name: str
    type: str
    shape: str
    sqnr_db: float | None = None
    relative_error: float | None = None
    agreement: float | None = None
    differing: int = 0


@dataclass(frozen=True)
class Details:
    """More about a row: `ledger` (bytes by kind) sums to the file, `archive_ledger` to its archive,
    `parameter_counts` to the stored numbers.
    """

    ledger: Mapping[str, int] = field(default_factory=dict)
    archive_ledger: Mapping[str, int] = field(default_factory=dict)
    parameter_counts: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[LayerRow, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    examples: tuple[Example, ...] = ()
    steps: tuple[Step, ...] = ()
    outputs: tuple[OutputRow, ...] = ()
    by_class: ByClass | None = None  # of classifiers with labels
    layer_us: Mapping[str, float] = field(default_factory=dict)  # time of each layer, where the engine tells
    other_us: float | None = None  # of all other nodes
    notes: tuple[str, ...] = ()  # what was requested and not given, each a full sentence

    def __repr__(self) -> str:
        parts = [(part.name.replace("_", " "), getattr(self, part.name)) for part in dataclasses.fields(self)]
        held = [(len(value), name) for name, value in parts if isinstance(value, Sized)]
        return f"<Details: {', '.join(f'{count:,} {name}' for count, name in held if count) or 'none'}>"

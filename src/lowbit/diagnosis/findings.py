"""What a diagnosis says, as plain data: findings in words, figures of every layer, and what the cures come to."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lowbit.measurement.results import finite
from lowbit.printable import brief, several
from lowbit.quantization.planning.plan import Plan

# Causes that are found in data; those of layers are rows of `causes.CAUSES`.
ORDER, NORMALIZATION, LAYOUT = "channel order", "normalization", "layout"
LABELS, ONE_CLASS, MISSING_CLASS = "labels", "one class", "missing class"
CORRUPT, DUPLICATES, OVERLAP, COVERAGE = "corrupt sample", "duplicates", "overlap", "coverage"
BROKEN, PARTING, KERNELS = "broken weights", "parting", "kernels"


@dataclass(frozen=True)
class FileFigures:
    """What one file comes to on the evaluation samples.

    Attributes:
        metric: the most important figure of the task; None where nothing can be judged.
        distance: from float: KL in nats of classifiers, else the relative error of the farthest output.
        file_bytes: of the file.
    """

    metric: float | None
    distance: float | None
    file_bytes: int


@dataclass(frozen=True)
class Gain:
    """What a cure brings, measured on the files as written: before it, and with it."""

    before: FileFigures
    after: FileFigures

    @property
    def bytes(self) -> int:
        """By how much the file grows."""
        return self.after.file_bytes - self.before.file_bytes


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        cause: what kind of thing.
        where: the layer, the sample or the data set.
        what: what was seen there, one sentence without a full stop.
        cure: what to do about it, ready to paste; empty where nothing is known.
        gain: of the cure; None where it was not measured.
    """

    cause: str
    where: str
    what: str
    cure: str = ""
    gain: Gain | None = None


@dataclass(frozen=True)
class LayerFigures:
    """What is known of one layer. Errors are squared errors of its output over its power, unless said otherwise.

    Attributes:
        node: its name.
        op: its operator.
        depthwise: whether it is a depthwise convolution.
        weight_error: by its weights' codes, in closed form.
        input_error: by the codes of its input, in closed form; 0 where these stay float.
        mean_error: the part of `weight_error` that moves the mean of its outputs.
        sqnr_db: of its weights in decibels; None where they are exact.
        weight_ratio: largest over smallest reach of an output channel's weights, of those that are not dead.
        channel_ratio: reach of the farthest channel of its output over the median one.
        channel: number of that channel.
        column: number of the input channel that most of `weight_error` comes from.
        column_share: its share in that.
        clipped: share of the values of its input that lie beyond the range.
        outlier: the sample that reaches farthest at its output, by name; empty where that is not known.
        outlier_ratio: how many times as far as the next one.
        dead: output channels that are zero for all samples.
        weight_damage: distance of the network's answers from float's with the codes of this layer's weights alone.
        input_damage: with the codes of its input alone.
        alone: what a file comes to in which only this layer is quantized; None where that was not measured.
        without: what a file comes to in which all layers but this one are quantized.
    """

    node: str
    op: str
    depthwise: bool
    weight_error: float
    input_error: float = 0.0
    mean_error: float = 0.0
    sqnr_db: float | None = None
    weight_ratio: float = 1.0
    channel_ratio: float = 1.0
    channel: int = 0
    column: int = 0
    column_share: float = 0.0
    clipped: float = 0.0
    outlier: str = ""
    outlier_ratio: float = 1.0
    dead: int = 0
    weight_damage: float = 0.0
    input_damage: float = 0.0
    alone: FileFigures | None = None
    without: FileFigures | None = None

    @property
    def damage(self) -> float:
        """By weights and input together: what ranks layers before files are measured."""
        return self.weight_damage + self.input_damage

    @property
    def by_input(self) -> bool:
        """Whether the codes of its input do more damage than those of its weights."""
        return self.input_damage > self.weight_damage

    @property
    def title(self) -> str:
        """Its name, and its operator or that it is depthwise."""
        return f"{self.node} ({'depthwise' if self.depthwise else self.op})"


@dataclass(frozen=True)
class TensorRow:
    """A layer's output in two files.

    Attributes:
        node: name of the layer in the float model.
        tensor: its output there.
        other: the tensor of the other file that it was compared with; empty if none was found.
        matched: "name" or "value": how that was found.
        error: relative error of the output.
        added: what the layer itself adds: the error of its output against what the float layer makes of the same input.
        weight_error: squared error of its weights over their power; None where the other file's are not known.
    """

    node: str
    tensor: str
    other: str = ""
    matched: str = ""
    error: float | None = None
    added: float | None = None
    weight_error: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a model, its data, and the file that a recipe makes of it.

    Attributes:
        model: name of the float file.
        recipe: that was looked at, with its rules; empty where two files were compared.
        findings: data first, then layers, the worst first.
        layers: in execution order.
        reference: the float model.
        plain: the file with plain codes in all layers, before any step; None where there is none.
        written: the file as `quantize` writes it.
        cured: the file with all cures; None where there are none.
        metric: what `FileFigures.metric` is called; empty where there is none.
        percent: whether it is a fraction that is shown as a percentage.
        measure: what `FileFigures.distance` is: "KL" or "relative error".
        samples: evaluation samples that judged.
        calibration_samples: that calibrated.
        notes: what could not be looked at, and why.
        tensors: of two files; empty otherwise.
        error: of two files: relative error of the farthest output.
        plan: with the cures in it; None where two files were compared.

    >>> found = lowbit.diagnose("model.onnx", "test", "linear8", calibration="photos")
    >>> found.samples, found.of("outlier-channel")
    (10, ())
    """

    model: str
    recipe: str
    findings: tuple[Finding, ...] = ()
    layers: tuple[LayerFigures, ...] = ()
    reference: FileFigures | None = None
    plain: FileFigures | None = None
    written: FileFigures | None = None
    cured: FileFigures | None = None
    metric: str = ""
    percent: bool = False
    measure: str = ""
    samples: int = 0
    calibration_samples: int = 0
    notes: tuple[str, ...] = ()
    tensors: tuple[TensorRow, ...] = ()
    error: float | None = None
    plan: Plan | None = None

    def __repr__(self) -> str:
        layers = several(len(self.tensors or self.layers), "layer")
        by = f" by {brief(self.recipe)}" if self.recipe else ""
        return f"<Diagnosis of {brief(self.model)}{by}: {several(len(self.findings), 'finding')}, {layers}>"

    def of(self, *causes: str) -> tuple[Finding, ...]:
        """The findings of some causes."""
        return tuple(finding for finding in self.findings if finding.cause in causes)

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON; the plan is a file of its own."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "plan"}
        data: dict[str, Any] = {name: _plain(value) for name, value in fields.items()}
        return data


def _plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return finite(value) if isinstance(value, float) else value

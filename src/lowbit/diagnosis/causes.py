"""From the figures of a layer to the cause of its damage and the cures worth trying, as one table.

A new cause is one row: when it applies, what is said, and what could help.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lowbit.diagnosis.findings import LayerFigures
from lowbit.diagnosis.layers import Examined, readers_of
from lowbit.diagnosis.trials import pattern_of
from lowbit.graph.ops import Layer, layers
from lowbit.quantization.planning.recipes import Recipe
from lowbit.schemes.linear import Linear

FAR_CHANNEL = 20.0  # times as far as the median channel
APART = 20.0  # channels' weights under one scale
COLUMN_SHARE = 0.5  # of the error of a layer's weights that comes from one input channel
OUTLIER = 3.0  # times as far as the next sample
CLIPPED = 1e-3
SHIFTED = 0.5  # share of the error that moves means


@dataclass(frozen=True)
class Patient:
    """A layer that does damage, and what is around it.

    Attributes:
        case: the network.
        own: the layer's figures.
        layer: the layer.
        source: figures of the layer whose output it reads; None if that is another tensor.
        recipe: what its weights get.
        effort: of the steps that were taken.
    """

    case: Examined
    own: LayerFigures
    layer: Layer
    source: LayerFigures | None
    recipe: Recipe
    effort: str


@dataclass(frozen=True)
class Cure:
    """Something to try: a rule more, or other options for the whole model.

    Attributes:
        rules: to be added.
        effort: in place of the given one; empty for that.
        ranges: range rule, likewise.
        per: what shares a scale, likewise.
    """

    rules: tuple[str, ...] = ()
    effort: str = ""
    ranges: str = ""
    per: str = ""

    @property
    def option(self) -> str:
        """As the command line takes it."""
        options = [f"--rule {_quoted(rule)}" for rule in self.rules]
        options += [f"--{name} {value}" for name in ("effort", "ranges", "per") if (value := getattr(self, name))]
        return " ".join(options)


@dataclass(frozen=True)
class Cause:
    """One row.

    Attributes:
        name: of the cause.
        applies: whether it explains a layer's damage.
        where: which layer is to blame.
        words: what is seen there.
        cures: what could help, the cheapest first.
    """

    name: str
    applies: Callable[[Patient], bool]
    where: Callable[[Patient], str]
    words: Callable[[Patient], str]
    cures: Callable[[Patient], Sequence[Cure]]


def patient(case: Examined, own: LayerFigures, effort: str) -> Patient:
    """A layer with the one before it."""
    layer = next(layer for layer in layers(case.model) if layer.node == own.node)
    source = _source(case, layer)
    tensor = next(tensor for tensor in case.decision.tensors if tensor.tensor == layer.weight)
    return Patient(case, own, layer, source, case.decision.recipe_of(tensor), effort)


def cause_of(case: Patient) -> Cause:
    """The first row that applies; the last one always does."""
    return next(cause for cause in CAUSES if cause.applies(case))


def _source(case: Examined, layer: Layer) -> LayerFigures | None:
    """The layer before this one with the most uneven channels, of those whose outputs come to it."""
    found = [
        one
        for one in case.figures
        if one.node != layer.node
        and any(reader.node == layer.node for reader in readers_of(case.model, case.outputs[one.node]))
    ]
    return max(found, key=lambda one: one.channel_ratio, default=None)


def _by_input(case: Patient) -> bool:
    return case.own.by_input


def _far_channel(case: Patient) -> bool:
    if case.source is None or case.source.channel_ratio < FAR_CHANNEL:
        return False
    same = case.own.column == case.source.channel and case.own.column_share > COLUMN_SHARE
    return _by_input(case) or same


def _far_words(case: Patient) -> str:
    assert case.source is not None
    why = "all share the scale of its output" if _by_input(case) else "errors of the weights behind it count for more"
    return (
        f"output channel {case.source.channel} reaches {case.source.channel_ratio:.0f}x as far as the median one, and "
        f"{why}; {case.own.title} loses by it"
    )


def _outlying_sample(case: Patient) -> bool:
    return _by_input(case) and case.source is not None and case.source.outlier_ratio > OUTLIER


def _one_scale(case: Patient) -> bool:
    scheme = case.recipe.weights
    shared = isinstance(scheme, Linear) and scheme.per == "tensor"
    return not _by_input(case) and shared and case.own.weight_ratio > APART


def _wider(case: Patient) -> tuple[Cure, ...]:
    """Weights of 8 bits and float arithmetic, or where these are there already, float."""
    pattern = pattern_of(case.layer.node)
    bits = case.recipe.bits
    cures = [Cure((f"{pattern}={name}",)) for name in (("int8", "linear8") if bits < 8 else ("linear8",))]
    if not case.recipe.integer:
        cures = [Cure((f"{pattern}=linear8",))] if bits < 8 else []
    return (*cures, Cure((f"{pattern}=float",)))


def _finer_input(case: Patient) -> tuple[Cure, ...]:
    """Its input in float: the layer that gives it must compute so, too, or it is rounded there."""
    if case.source is None:
        return _wider(case)
    nodes = [pattern_of(node) for node in (case.source.node, case.layer.node)]
    return tuple(Cure(tuple(f"{node}={name}" for node in nodes)) for name in ("linear8", "float"))


def _steps(case: Patient) -> tuple[Cure, ...]:
    """More steps than were taken: equalization and rounding are what a higher effort adds."""
    return (Cure(effort="balanced"),) if case.effort == "fast" and case.recipe.integer else ()


CAUSES: tuple[Cause, ...] = (
    Cause(
        "outlier channel",
        _far_channel,
        lambda case: case.source.title if case.source is not None else case.own.title,
        _far_words,
        lambda case: (*_steps(case), *(_finer_input(case) if _by_input(case) else _wider(case))),
    ),
    Cause(
        "outlier sample",
        _outlying_sample,
        lambda case: case.own.title,
        lambda case: (
            f"{case.source.outlier if case.source else ''} alone stretches the range of its input "
            f"{case.source.outlier_ratio if case.source else 1:.1f}x"
        ),
        lambda case: (Cure(ranges="extremes"), Cure(ranges="percentile"), *_finer_input(case)),
    ),
    Cause(
        "clipping",
        lambda case: _by_input(case) and case.own.clipped > CLIPPED,
        lambda case: case.own.title,
        lambda case: f"{100 * case.own.clipped:.2g} % of the values of its input are clipped",
        lambda case: (Cure(ranges="minmax"), *_finer_input(case)),
    ),
    Cause(
        "channel ranges",
        _one_scale,
        lambda case: case.own.title,
        lambda case: f"channel ranges {case.own.weight_ratio:.0f}x apart under one scale",
        lambda case: (Cure(per="channel"), *_wider(case)),
    ),
    Cause(
        "bias shift",
        lambda case: not _by_input(case) and case.own.mean_error > SHIFTED * case.own.weight_error,
        lambda case: case.own.title,
        lambda case: "its weights' codes move the means of its outputs",
        lambda case: (*_steps(case), *_wider(case)),
    ),
    Cause(
        "coarse activations",
        _by_input,
        lambda case: case.own.title,
        lambda case: f"{case.case.decision.activations.bits} bits are coarse for its input",
        lambda case: (*_steps(case), *_finer_input(case)),
    ),
    Cause(
        "coarse weights",
        lambda case: True,
        lambda case: case.own.title,
        lambda case: (
            f"{case.recipe.bits} bits are coarse for its weights"
            + (f", whose channels range {case.own.weight_ratio:.0f}x apart" if case.own.weight_ratio > APART else "")
        ),
        lambda case: (*_wider(case)[:1], *_steps(case), *_wider(case)[1:]),
    ),
)


def _quoted(rule: str) -> str:
    return f"'{rule}'" if set(rule) & set(' *?[]<>()&;$|\\"') else rule

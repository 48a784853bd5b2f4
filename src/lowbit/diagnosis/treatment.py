"""Cures are tried, not guessed: each is a file that is written, run and compared with the one before."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lowbit.data.dataset import Dataset
from lowbit.diagnosis.causes import Cure, cause_of, patient
from lowbit.diagnosis.findings import FileFigures, Finding, Gain, LayerFigures
from lowbit.diagnosis.layers import Examined
from lowbit.diagnosis.trials import Trials
from lowbit.errors import SchemeError
from lowbit.graph.model import Model
from lowbit.progress import SILENT, Progress
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.planning.rules import RuleLayer, Rules, parse_rule
from lowbit.quantization.quantize import quantize

NOTICEABLE = 0.02  # distance of a file from float, in nats or as a relative error, from which causes are looked for
DROP = 0.01  # of the metric, likewise
ITS_SHARE = 0.2  # of the distance of all layers together, that a layer must account for
CURED = 0.75  # distance with a cure over that without, at most
MOST_LAYERS = 3
MOST_TRIES = 6


@dataclass(frozen=True)
class Treatment:
    """What `quantize` is asked for.

    Attributes:
        recipe: of the whole model.
        rules: for some layers.
        effort: of the steps.
    """

    recipe: Recipe
    rules: Rules
    effort: str

    def with_cure(self, cure: Cure) -> "Treatment":
        """The same with a cure.

        Raises:
            SchemeError: the recipe does not take it.
        """
        recipe = parse_recipe(self.recipe, per=cure.per or None, ranges=cure.ranges or None)
        return Treatment(recipe, _with_rules(self.rules, cure.rules), cure.effort or self.effort)

    def planned(self, model: Model) -> Plan:
        """Its plan."""
        return plan(model, self.recipe, rules=self.rules, effort=self.effort)


def _with_rules(rules: Rules, more: Sequence[str]) -> Rules:
    """Rules and texts of others, which win."""
    if not more or not callable(rules):
        return (*rules, *more) if not callable(rules) else rules
    parsed = [parse_rule(text) for text in reversed(more)]

    def rule(layer: RuleLayer) -> str | Recipe | None:
        return next((each.recipe for each in parsed if each.chooses(layer)), None) or rules(layer)

    return rule


@dataclass(frozen=True)
class Ward:
    """Where cures are tried.

    Attributes:
        model: the prepared float model.
        calibration: samples, in runs of the model.
        trials: that judge.
        progress: told as files are made.
    """

    model: Model
    calibration: Dataset
    trials: Trials
    progress: Progress = SILENT

    def outcome(self, treatment: Treatment) -> FileFigures:
        """What the file comes to that `quantize` writes."""
        quantized = quantize(
            self.model, treatment.planned(self.model), calibration=self.calibration, progress=self.progress
        )
        return self.trials.figures_of(quantized.to_bytes())


def is_noticeable(figures: FileFigures, reference: FileFigures) -> bool:
    """Whether a file is far enough from float to look for causes."""
    lost = 0.0 if figures.metric is None or reference.metric is None else abs(reference.metric - figures.metric)
    return _far(figures) > NOTICEABLE or lost > DROP


def culprits(worst: Sequence[LayerFigures], plain: FileFigures) -> list[LayerFigures]:
    """Of the layers that were measured those that account for a good part of what all layers together do."""
    together = _far(plain)

    def accounts(one: LayerFigures) -> bool:
        if one.alone is None or one.without is None:
            return False
        part = max(_far(one.alone), together - _far(one.without) if math.isfinite(together) else 0.0)
        return part >= ITS_SHARE * together

    return [one for one in worst if accounts(one)][:MOST_LAYERS]


def _far(figures: FileFigures) -> float:
    """The distance; a file that answers with no numbers is infinitely far."""
    return math.inf if figures.distance is None else figures.distance


def treated(
    case: Examined, treatment: Treatment, sick: Sequence[LayerFigures], ward: Ward, written: FileFigures
) -> tuple[tuple[Finding, ...], Treatment, FileFigures | None]:
    """Findings about layers, with the cures that help; the treatment with all of these, and what it comes to.

    A cure that another finding has brought already is not tried again; what does not help is said to be so.

    Args:
        case: the network.
        treatment: what was asked for.
        sick: layers that do damage, the worst first.
        ward: where cures are tried.
        written: what the file as asked for comes to.
    """
    findings: list[Finding] = []
    kept: list[Cure] = []
    tried: dict[Cure, FileFigures] = {}
    for own in sick:
        found = patient(case, own, treatment.effort)
        cause = cause_of(found)
        if any(one.cause == cause.name and one.where == cause.where(found) for one in findings):
            continue
        best: tuple[Cure, FileFigures] | None = None
        for cure in cause.cures(found):
            if cure not in tried and len(tried) < MOST_TRIES:
                try:
                    tried[cure] = ward.outcome(treatment.with_cure(cure))
                except SchemeError:
                    continue
            if cure in tried and _far(tried[cure]) <= CURED * _far(written):
                best = cure, tried[cure]
                break
        gain = None if best is None else Gain(written, best[1])
        option = "" if best is None else best[0].option
        findings.append(Finding(cause.name, cause.where(found), cause.words(found), option, gain))
        if best is not None and best[0] not in kept:
            kept.append(best[0])
    for cure in kept:
        treatment = treatment.with_cure(cure)
    if not kept:
        return tuple(findings), treatment, None
    cured = tried[kept[0]] if len(kept) == 1 else ward.outcome(treatment)
    return tuple(findings), treatment, cured

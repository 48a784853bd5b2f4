"""What a file comes to: it is written, run in a real runtime on samples that nothing was fitted to, and judged."""

from collections.abc import Sequence
from dataclasses import replace

from lowbit.data.dataset import Dataset
from lowbit.diagnosis.findings import FileFigures, LayerFigures
from lowbit.diagnosis.layers import Examined
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.measurement.exam import Exam
from lowbit.measurement.outputs import worst
from lowbit.measurement.prediction import Answers
from lowbit.progress import SILENT, Progress
from lowbit.quantization.passes.candidate import assembled
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.planning.rules import RuleLayer, Rules

KL, RELATIVE_ERROR = "KL", "relative error"


class Trials:
    """The float model's answers, and what other files come to beside them.

    Args:
        model: the prepared float model.
        data: evaluation samples, in runs of the model.

    Attributes:
        metric: what the metric of the task is called, with its unit; empty where the task has none.
        percent: whether that is a fraction, shown as a percentage.
        measure: what the distance is: `KL` or `RELATIVE_ERROR`.
        reference: the float model.
    """

    def __init__(self, model: Model, data: Dataset) -> None:
        self._exam = Exam.of(model, data)
        task, classifies = self._exam.task, self._exam.classifies
        self.measure = KL if classifies else RELATIVE_ERROR
        metric = task.metrics[0] if task.metrics else None
        self.metric = metric.title if metric and not classifies else ""
        self.percent = classifies or (metric is not None and metric.unit == "%")
        if classifies:
            self.metric = "accuracy" if self._exam.reference.labels is not None else "agreement"
        self.reference = self._figures(self._exam.reference, len(model.to_bytes()))

    def figures_of(self, content: bytes) -> FileFigures:
        """What a file comes to."""
        return self._figures(self._exam.answers(content), len(content))

    def _figures(self, answers: Answers, size: int) -> FileFigures:
        score = self._exam.score(answers)
        if self._exam.classifies:
            return FileFigures(score.agreement if score.accuracy is None else score.accuracy, score.kl, size)
        farthest = worst(score.outputs)
        metrics = self._exam.task.metrics
        metric = score.scores.get(metrics[0].name) if metrics else None
        return FileFigures(metric, None if farthest is None else farthest.relative_error, size)


def plain_file(case: Examined) -> bytes:
    """The file with plain codes in all layers."""
    return to_onnx(plain_graph(case, case.decision))


def plain_graph(case: Examined, decision: Plan) -> QuantizedGraph:
    """The graph of a plan that gives some of the layers what the examined plan gives them."""
    codes = {tensor.tensor: case.codes[tensor.tensor] for tensor in decision.quantized if tensor.tensor in case.codes}
    if not decision.integer:
        return assembled(case.model, decision, codes, {}, None)
    at, groups = case.activations, decision.scale_groups
    known = all(at.keys() >= set(group) and len({at[tensor] for tensor in group}) == 1 for group in groups)
    # Ranges that are known need not be searched for again.
    shared = {tensor: at[tensor] for group in groups for tensor in group} if known else None
    return assembled(case.model, decision, codes, {}, case.statistics, activations=shared)


def confirmed(
    case: Examined, trials: Trials, chosen: Sequence[LayerFigures], rules: Rules, *, progress: Progress = SILENT
) -> tuple[LayerFigures, ...]:
    """All figures, those of some layers with what files come to in which only they are quantized, and all but they.

    Args:
        case: the network.
        trials: that judge.
        chosen: the layers to be confirmed.
        rules: of the plan that was examined.
        progress: told after every layer.
    """
    by_node = {layer.node: layer for layer in layers(case.model)}
    found = {}
    for one in progress.track(chosen, "measuring layers", total=len(chosen)):
        layer = by_node[one.node]
        alone = trials.figures_of(to_onnx(plain_graph(case, _only(case, layer))))
        without = trials.figures_of(to_onnx(plain_graph(case, _without(case, layer, rules))))
        found[one.node] = replace(one, alone=alone, without=without)
    return tuple(found.get(one.node, one) for one in case.figures)


def can_be_alone(decision: Plan) -> bool:
    """Whether single layers can be quantized as a plan says: half precision is the arithmetic of a whole network."""
    return decision.recipe.arithmetic == "float32"


def _only(case: Examined, layer: Layer) -> Plan:
    recipe = _recipe_of(case, layer)
    base = replace(
        parse_recipe("float"), ranges=recipe.ranges, target=case.decision.recipe.target, activations=recipe.activations
    )

    def rule(asked: RuleLayer) -> Recipe | None:
        return recipe if asked.weight == layer.weight else None

    return plan(case.model, base, rules=rule, steps=())


def _recipe_of(case: Examined, layer: Layer) -> Recipe:
    tensor = next(tensor for tensor in case.decision.tensors if tensor.tensor == layer.weight)
    return case.decision.recipe_of(tensor)


def _without(case: Examined, layer: Layer, rules: Rules) -> Plan:
    return plan(case.model, case.decision.recipe, rules=with_rule(rules, layer, "float"), steps=())


def with_rule(rules: Rules, layer: Layer, recipe: str) -> Rules:
    """The rules with one more for a layer."""
    if not callable(rules):
        return (*rules, f"{pattern_of(layer.node)}={recipe}")

    def rule(asked: RuleLayer) -> str | Recipe | None:
        return recipe if asked.weight == layer.weight else rules(asked)

    return rule


def pattern_of(name: str) -> str:
    """What a rule calls a node, whose name may be a word of rules or hold what stands for any characters."""
    special = name in ("first", "last", "depthwise") or name.startswith(("op:", "bytes"))
    escaped = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
    return f"[{escaped[0]}]{escaped[1:]}" if special else escaped

"""Rules: another recipe for some layers, such as `depthwise=linear8`; later rules win.

A rule chooses among the weights of a model (those of layers, and all others) and its nodes without weights. What it
says of a weight holds for all layers that read it: they get the recipe's scheme, and its arithmetic. Nodes without
weights have arithmetic only: a recipe that computes in integers lets them, any other keeps them in float.

    PATTERN=RECIPE      what it chooses
    features.0.*        names of nodes or weights; * and ? stand for any characters
    op:Gemm             an operator
    depthwise           depthwise convolutions
    first, last         layers that no other layer comes before, or behind: of a model with two inputs both first ones
    bytes<4096          weights by their size as float; also <=, > and >=
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from lowbit.errors import SchemeError, did_you_mean
from lowbit.graph.model import Model, Node
from lowbit.graph.ops import Layer
from lowbit.graph.weights import OtherWeight, node_of
from lowbit.quantization.planning.recipes import Recipe, parse_recipe

EXAMPLES = "'depthwise=linear8', 'op:Gemm=int8', 'features.0.*=float' or 'bytes<4096=float'"
COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
BYTES = re.compile(r"bytes\s*(<=|>=|<|>)\s*(\d{1,15})")


@dataclass(frozen=True)
class RuleLayer:
    """What a rule sees: a weight with the nodes that read it, a float tensor that is no weight, or a node without any.

    Attributes:
        nodes: names of the nodes; of a recurrent weight with ".W" or ".R" behind them.
        ops: their operators.
        weight: name of the initializer; empty for a node without weights.
        shape: of the weight.
        bytes: of the weight as float; 0 for a node without weights.
        depthwise: whether it belongs to a depthwise convolution.
        first: whether it belongs to a layer that no other layer comes before.
        last: the same for behind.

    >>> def rule(layer: lowbit.RuleLayer) -> str | None:
    ...     return "float" if layer.first or layer.bytes < 700 else None
    >>> len(lowbit.plan("model.onnx", "linear8", rules=rule).quantized)
    4
    """

    nodes: tuple[str, ...]
    ops: tuple[str, ...]
    weight: str = ""
    shape: tuple[int, ...] = ()
    bytes: int = 0
    depthwise: bool = False
    first: bool = False
    last: bool = False

    @property
    def node(self) -> str:
        """The first of its nodes."""
        return self.nodes[0] if self.nodes else ""

    @property
    def op(self) -> str:
        """Operator of that node."""
        return self.ops[0] if self.ops else ""

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that a pattern can call it by."""
        recurrent = tuple(name[:-2] for name in self.nodes if name.endswith((".W", ".R")))
        return (*self.nodes, *recurrent, *((self.weight,) if self.weight else ()))


# Patterns that are a word of their own.
WORDS: dict[str, Callable[[RuleLayer], bool]] = {
    "depthwise": lambda layer: layer.depthwise,
    "first": lambda layer: layer.first,
    "last": lambda layer: layer.last,
}

Rules = Sequence[str] | Callable[[RuleLayer], str | Recipe | None]


@dataclass(frozen=True)
class Rule:
    """A rule that was understood.

    Attributes:
        text: as written.
        pattern: which layers.
        recipe: what they get.
    """

    text: str
    pattern: str
    recipe: Recipe

    def chooses(self, layer: RuleLayer) -> bool:
        """Whether the rule speaks of this layer."""
        if self.pattern in WORDS:
            return WORDS[self.pattern](layer)
        if self.pattern.startswith("op:"):
            return any(_like(op, self.pattern[3:]) for op in layer.ops)
        if size := BYTES.fullmatch(self.pattern):
            return layer.bytes > 0 and COMPARISONS[size[1]](layer.bytes, int(size[2]))
        return any(_like(name, self.pattern) for name in layer.names)


def _like(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


@dataclass(frozen=True)
class Choice:
    """What one layer gets.

    Attributes:
        recipe: whose scheme and arithmetic.
        rule: the text of the rule that chose it; empty for the recipe of the whole model.
    """

    recipe: Recipe
    rule: str = ""


@dataclass(frozen=True)
class Choices:
    """What rules chose for a model.

    Attributes:
        base: what everything gets that no rule speaks of.
        weights: by initializer, where a rule speaks of it.
        nodes: by node without weights, where a rule speaks of it.
        rules: their texts, in order.
    """

    base: Recipe
    weights: Mapping[str, Choice]
    nodes: Mapping[str, Choice]
    rules: tuple[str, ...] = ()

    def of(self, weight: str) -> Choice:
        """What a weight gets."""
        return self.weights.get(weight, Choice(self.base))


def parse_rule(text: str) -> Rule:
    """A rule from its text.

    Raises:
        SchemeError: it is malformed, or there is no such recipe.
    """
    pattern, _, name = (part.strip() for part in text.rpartition("="))
    remedy = f"Write PATTERN=RECIPE, for example {EXAMPLES}."
    if not pattern or not name or pattern == "op:":
        raise SchemeError(f"rule '{text}' does not say which layers get which recipe.", remedy=remedy)
    if re.match(r"bytes\s*[<>]", pattern) and not BYTES.fullmatch(pattern):
        raise SchemeError(f"rule '{text}' compares bytes with no whole number.", remedy=remedy)
    try:
        return Rule(text.strip(), pattern, parse_recipe(name))
    except SchemeError as error:
        raise SchemeError(error.what, where=f"rule '{text}'", remedy=error.remedy) from error


def chosen_recipes(
    model: Model, users: Mapping[str, Sequence[Layer | OtherWeight]], base: Recipe, rules: Rules
) -> Choices:
    """What every weight and every node gets.

    Args:
        model: the prepared float model.
        users: by weight, who reads it.
        base: the recipe of the whole model.
        rules: texts, of which later ones win, or a function from layer to recipe; its None leaves the base recipe.

    Raises:
        SchemeError: a rule is malformed, names no recipe, or speaks of nothing in the model.
    """
    if isinstance(rules, str):
        raise SchemeError(f"rules are a list, not '{rules}'.", remedy=f"Write rules=['{rules}'].")
    seen = tuple(rule_layers(model, users)) if rules else ()
    if callable(rules):
        return _of_one_arithmetic(_by_function(seen, base, rules))
    parsed = [parse_rule(text) for text in rules]
    weights: dict[str, Choice] = {}
    nodes: dict[str, Choice] = {}
    for rule in parsed:
        chosen = [layer for layer in seen if rule.chooses(layer)]
        if not chosen:
            raise _chose_nothing(rule, seen)
        weights |= {layer.weight: Choice(rule.recipe, rule.text) for layer in chosen if layer.weight}
        nodes |= {layer.node: Choice(rule.recipe, rule.text) for layer in chosen if not layer.weight}
        if rule.recipe.weights is not None and not rule.recipe.integer and not any(layer.weight for layer in chosen):
            raise SchemeError(
                f"rule '{rule.text}' speaks of nodes without weights only, such as {chosen[0].node} ({chosen[0].op}).",
                remedy=f"To keep them in float write {rule.pattern}=float.",
            )
    return _of_one_arithmetic(Choices(base, weights, nodes, tuple(rule.text for rule in parsed)))


def _of_one_arithmetic(choices: Choices) -> Choices:
    """Refuse half precision beside integers, or beside float32: a network computes in one type of floats.

    Raises:
        SchemeError: a rule, or the recipe of the whole model, asks for it.
    """
    base = choices.base
    for choice in (*choices.weights.values(), *choices.nodes.values()):
        asks = choice.recipe.arithmetic not in ("float32", base.arithmetic)
        if asks or (base.arithmetic != "float32" and choice.recipe.integer):
            half, other = (choice.recipe, base) if asks else (base, choice.recipe)
            raise SchemeError(
                f"'{half.name}' is the arithmetic of a whole network, and {choice.rule} mixes it with '{other.name}'.",
                remedy=f"To store weights in half precision write {half.name}w.",
            )
    return choices


def rule_layers(model: Model, users: Mapping[str, Sequence[Layer | OtherWeight]]) -> Iterator[RuleLayer]:
    """Everything that a rule can speak of: weights in execution order, other float tensors, nodes without weights."""
    weighted = {node_of(user) for reading in users.values() for user in reading}
    first, last = _ends(model, weighted)
    for name, reading in users.items():
        at = {node_of(user) for user in reading}
        yield RuleLayer(
            nodes=tuple(dict.fromkeys(user.node for user in reading)),
            ops=tuple(dict.fromkeys(user.op for user in reading)),
            weight=name,
            shape=reading[0].weight_shape,
            bytes=math.prod(reading[0].weight_shape) * model.weights[name].itemsize,
            depthwise=any(isinstance(user, Layer) and user.depthwise for user in reading),
            first=not at.isdisjoint(first),
            last=not at.isdisjoint(last),
        )
    for name, array in model.weights.items():
        if name not in users and array.dtype.kind == "f" and array.size > 1:
            yield RuleLayer((), (), name, array.shape, array.nbytes)
    for node in model.graph:
        if node.name not in weighted:
            yield RuleLayer((str(node.name),), (node.op_type,))


def with_activations(base: Recipe, rules: Rules, *, ranges: str | None, target: str | None) -> Recipe:
    """The recipe with a range rule and a target of its own, which it takes if a rule brings integers.

    Raises:
        SchemeError: no such range rule or target, or nothing computes in integers.
    """
    integers = () if callable(rules) else [rule.recipe for rule in map(parse_rule, rules) if rule.recipe.integer]
    if base.integer or not integers:
        return parse_recipe(base, ranges=ranges, target=target)
    checked = parse_recipe(integers[0], ranges=ranges, target=target)
    return replace(base, ranges=checked.ranges, target=checked.target, activations=checked.activations)


def _by_function(
    seen: Sequence[RuleLayer], base: Recipe, choose: Callable[[RuleLayer], str | Recipe | None]
) -> Choices:
    """The answers of a function that is asked about every weight."""
    text = f"{getattr(choose, '__name__', type(choose).__name__)}()".replace("<lambda>", "lambda")
    weights = {}
    for layer in seen:
        answer = choose(layer) if layer.nodes and layer.weight else None
        if answer is None:
            continue
        if not isinstance(answer, str | Recipe):
            raise SchemeError(
                f"rule {text} answered {answer!r} for {layer.weight}.", remedy="Return a recipe, its name, or None."
            )
        try:
            parse_recipe(answer.name if isinstance(answer, Recipe) else answer)
            weights[layer.weight] = Choice(parse_recipe(answer), text)
        except SchemeError as error:
            raise SchemeError(error.what, where=f"rule {text}", remedy=error.remedy) from error
    return Choices(base, weights, {}, (text,))


def _chose_nothing(rule: Rule, seen: Sequence[RuleLayer]) -> SchemeError:
    """The error for a rule that speaks of nothing, with what comes close."""
    ops = dict.fromkeys(op for layer in seen for op in layer.ops)
    sizes = [layer.bytes for layer in seen if layer.bytes]
    if rule.pattern in WORDS:
        what, remedy = f"the model has no {rule.pattern} layer", "Leave the rule out."
    elif rule.pattern.startswith("op:"):
        what = "the model has no such operator with weights, and none without"
        remedy = f"{did_you_mean(rule.pattern[3:], ops)}It has {', '.join(sorted(ops))}."
    elif BYTES.fullmatch(rule.pattern):
        what = f"weights take {min(sizes, default=0)} to {max(sizes, default=0)} bytes"
        remedy = "Name another size."
    else:
        what = "no node and no weight is called so"
        names = [name for layer in seen for name in layer.names]
        remedy = f"{did_you_mean(rule.pattern, (*names, *WORDS))}`lowbit plan` lists all names."
    return SchemeError(f"rule '{rule.text}' speaks of nothing: {what}.", remedy=remedy)


def _ends(model: Model, weighted: set[str]) -> tuple[set[str], set[str]]:
    """Of the nodes that read weights, those behind which, and those before which, there is no other one.

    A node whose bodies (of an If, Loop or Scan) hold some counts as one of them, and so do those in its bodies.
    """
    inside = {str(node.name): _in_bodies(node) & weighted for node in model.graph}
    ends: tuple[set[str], set[str]] = (set(), set())
    for forward, found in ((True, ends[0]), (False, ends[1])):
        reached: set[str] = set()
        for node in model.graph if forward else reversed(model.graph):
            values = [str(value.name) for value in node.inputs if value is not None]
            outputs = [str(value.name) for value in node.outputs]
            before, behind = (values, outputs) if forward else (outputs, values)
            own = ({str(node.name)} & weighted) | inside[str(node.name)]
            comes_later = not reached.isdisjoint(before)
            if own and not comes_later:
                found |= own
            if own or comes_later:
                reached |= set(behind)
    return ends


def _in_bodies(node: Node) -> set[str]:
    graphs = [attribute.as_graph() for attribute in node.attributes.values() if attribute.type.name == "GRAPH"]
    return {str(inner.name) for graph in graphs for inner in graph.all_nodes()}

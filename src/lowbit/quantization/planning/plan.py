"""The plan: what will be done to each tensor and node, and why, as plain data made before any number is touched."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lowbit.errors import DowngradeError
from lowbit.formats.devices import DEVICES
from lowbit.formats.quantized_graph import UINT8, ActivationKind
from lowbit.graph.weights import RECURRENT
from lowbit.printable import brief
from lowbit.quantization.planning.kernels import WEIGHTED
from lowbit.quantization.planning.limits import limits
from lowbit.quantization.planning.node_plan import NodePlan
from lowbit.quantization.planning.packing import packing_notes
from lowbit.quantization.planning.plan_json import (
    nodes_from_json,
    nodes_to_json,
    objects,
    readable,
    recipe_from_json,
    recipe_to_json,
    steps_from_json,
    tensor_from_json,
    tensor_to_json,
    text,
    texts,
)
from lowbit.quantization.planning.recipes import AUTO_RANGES, FIRST_RANGES, Recipe, parse_recipe
from lowbit.quantization.planning.steps import (
    STEP_NAMES,
)
from lowbit.quantization.planning.target import activations_for
from lowbit.quantization.planning.tensors import (
    SIZE_REASON,
    TensorPlan,
    extra_bits_spent,
)

if TYPE_CHECKING:
    import pandas

NO_BFLOAT16 = "only weights are bfloat16: no runtime computes in it on processors as the file says"
WORTH_SAYING = 0.01  # share of the weights' bytes whose staying float is said first of all


@dataclass(frozen=True)
class Plan:
    """The complete decision for one model, by one recipe and the rules that name others for some layers.

    Attributes:
        recipe: what was asked for.
        tensors: one per weight, and one per other float tensor, with the reason why it stays float.
        nodes: how each node computes, where some are asked to compute in integers, or all in float16; empty otherwise.
        scale_groups: activations that become uint8; those in one group share scale and zero point.
        steps: what will be tried between plain codes and the file, in order; empty without calibration images.
        effort: how long the steps may search, a row of `EFFORTS`.
        target: processor that an integer file is made for, a row of `TARGETS`; empty for other recipes.
        rules: texts of the rules that were followed, and `integer.EDITED` if its file was changed by hand.

    >>> plan = lowbit.plan("model.onnx", "linear8")
    >>> plan.tensors[0].tensor, plan.tensors[0].given.name
    ('stem.weight', 'linear8/channel')
    """

    recipe: Recipe
    tensors: tuple[TensorPlan, ...]
    nodes: tuple[NodePlan, ...] = ()
    scale_groups: tuple[tuple[str, ...], ...] = ()
    steps: tuple[str, ...] = ()
    effort: str = "balanced"
    target: str = ""
    rules: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Plan {self.summary()}>"

    def summary(self) -> str:
        """The recipe, and how much of the model becomes integers, in one line."""
        weights = sum(bool(tensor.layers) for tensor in self.tensors)
        parts = [f"{len(self.quantized):,} of {weights:,} weights as codes"]
        if self.nodes:
            integers = sum(node.arithmetic in ("integer", "absorbed") for node in self.nodes)
            parts.append(f"{integers:,} of {len(self.nodes):,} nodes in integers")
        parts += [f"{len(self.downgrades):,} downgraded"] if self.downgrades else []
        return f"{brief(self.title)}: {', '.join(parts)}"

    def _repr_html_(self) -> str:
        from lowbit.reports.notebook import plan_html

        return plan_html(self)

    def to_pandas(self) -> "pandas.DataFrame":
        """A line per tensor, under its name: share of the weights' bytes, what was asked for and given, and why.

        Raises:
            EngineError: pandas is not installed.
        """
        from lowbit.reports.frames import plan_frame

        return plan_frame(self)

    @property
    def integer(self) -> bool:
        """Whether any node computes in integers."""
        return any(node.arithmetic == "integer" for node in self.nodes)

    @property
    def title(self) -> str:
        """The recipe, and the rules if there are any."""
        return f"{self.recipe.name} with {', '.join(self.rules)}" if self.rules else self.recipe.name

    def recipe_of(self, tensor: TensorPlan) -> Recipe:
        """The recipe that asks for a tensor: that of the whole model, or the one that a rule named."""
        return self.recipe if tensor.recipe in ("", self.recipe.name) else parse_recipe(tensor.recipe)

    @property
    def decoded(self) -> frozenset[str]:
        """Weights that are to be decoded for layers which compute in float: their biases may be in half precision."""
        return frozenset(tensor.tensor for tensor in self.tensors if tensor.asked is not None and not tensor.integer)

    @property
    def quantized(self) -> tuple[TensorPlan, ...]:
        """Tensors that get a scheme."""
        return tuple(tensor for tensor in self.tensors if tensor.given is not None)

    @property
    def packed(self) -> frozenset[str]:
        """Weights of integer layers that are to take fewer bits than a byte has: see `QuantizedGraph.packed`."""
        return frozenset(tensor.tensor for tensor in self._narrow)

    @property
    def _narrow(self) -> list[TensorPlan]:
        """Weights of integer layers of which fewer bits were asked for; compilers of devices unpack nothing."""
        if self.target in DEVICES:
            return []
        in_integers = {node.node for node in self.nodes if node.arithmetic == "integer"}
        narrow = [tensor for tensor in self.quantized if tensor.asked is not None and tensor.asked.bits < 8]
        return [tensor for tensor in narrow if in_integers.intersection(tensor.layers)]

    @property
    def activations(self) -> ActivationKind:
        """How activations of integer layers are held."""
        return activations_for(self.target, self.recipe.activations) if self.target else self.recipe.activations

    @property
    def dynamic(self) -> frozenset[str]:
        """Names of the nodes whose inputs become codes as they run, where there is a fast kernel for it."""
        given = [tensor for tensor in self.quantized if tensor.given is not None and tensor.given.per != "group"]
        return frozenset(node for tensor in given if self.recipe_of(tensor).dynamic for node in tensor.layers)

    @property
    def block_kernels(self) -> frozenset[str]:
        """Names of the nodes whose codes a kernel is to read block by block, where there is one for them."""
        asking = [tensor for tensor in self.quantized if self.recipe_of(tensor).block_kernels]
        return frozenset(node for tensor in asking for node in tensor.layers)

    @property
    def as_planned(self) -> bool:
        """Whether the file is for a device's compiler, or of codes that CPUs have no kernels for."""
        return self.target in DEVICES or (self.integer and self.activations != UINT8)

    @property
    def has_cpu_kernels(self) -> bool:
        """Whether integer kernels of CPUs run it."""
        return self.integer and not self.as_planned

    @property
    def own_files(self) -> bool:
        """Whether each engine gets a file of its own."""
        return bool(self.integer or self.dynamic or self.block_kernels)

    @property
    def limits(self) -> tuple[str, ...]:
        """What the recipes cannot give, and where, in one sentence each."""
        used = dict.fromkeys((self.recipe, *(self.recipe_of(tensor) for tensor in self.quantized)))
        return tuple(dict.fromkeys(sentence for recipe in used for sentence in limits(recipe, self.target)))

    @property
    def range_rule(self) -> str:
        """The row of `RANGE_RULES` that ranges of activations follow, or begin with where the best is to be found."""
        return FIRST_RANGES if self.recipe.ranges == AUTO_RANGES else self.recipe.ranges

    @property
    def downgrades(self) -> tuple[str, ...]:
        """One sentence per weight or node that does not get what the recipe asks for."""
        tensors = [_downgrade(plan) for plan in self.tensors if plan.downgraded]
        nodes = [f"{node.node} ({node.op}) computes in float: {node.reason}" for node in self.downgraded_nodes]
        return tuple(tensors + nodes + ([NO_BFLOAT16] if self.recipe.arithmetic == "bfloat16" else []))

    @property
    def downgraded_nodes(self) -> tuple[NodePlan, ...]:
        """Those that were asked to compute in integers, are worth it, and do not."""
        worth = WEIGHTED | RECURRENT.keys() | {"Add", "Einsum"}
        return tuple(
            node for node in self.nodes if node.arithmetic == "float" and node.asked == "integer" and node.op in worth
        )

    @property
    def float_share(self) -> float:
        """Share of the bytes of all float constants that were to become codes and stay float."""
        return sum(tensor.share for tensor in self.tensors if tensor.downgraded and tensor.given is None)

    @property
    def shortfall(self) -> str:
        """That the weights shrink by less than was asked for, and why; empty if they do not."""
        left = [tensor for tensor in self.tensors if tensor.downgraded and tensor.given is None]
        if self.float_share < WORTH_SAYING:
            return ""
        largest = max(left, key=lambda tensor: tensor.share)
        return f"less than asked: {_share(self.float_share)} of the weights' bytes stay float, {largest.tensor} first"

    @property
    def adaptations(self) -> tuple[str, ...]:
        """What differs from the recipe by a rule of lowbit's, in one sentence each.

        `--strict` accepts them. Wider weights in small layers are more than was asked for. For a target 8 bits could be
        written, but it would not compute what the file says; naming a target (or being on one) asks for exactly this.
        """
        sentences = [
            f"{node.node} ({node.op}) computes in float32: {node.reason}"
            for node in self.nodes
            if node.arithmetic == "float32"
        ]
        weights = [tensor for tensor in self.quantized if tensor.layers]
        wider = {tensor.given.bits for tensor in weights if tensor.given and tensor.reason == SIZE_REASON}
        if wider:
            count = sum(tensor.reason == SIZE_REASON for tensor in weights)
            sizes = [math.prod(tensor.shape) for tensor in weights]
            bits = sum(size * tensor.given.bits for size, tensor in zip(sizes, weights, strict=True) if tensor.given)
            each = f"{min(wider)} to {max(wider)}" if len(wider) > 1 else f"{max(wider)}"
            spent = f"{extra_bits_spent(self.tensors, self.recipe):.2f} of {self.recipe.extra_bits:.2f} extra spent"
            mean = f"{bits / sum(sizes):.2f} per weight in all, {spent}"
            sentences.append(f"{count} of {len(weights)} weights get {each} bits, {mean}: {SIZE_REASON}")
        sentences += packing_notes(self._narrow)
        for_target: dict[tuple[str, str], int] = {}
        for tensor in weights:
            if tensor.given is not None and tensor.adapted and tensor.reason != SIZE_REASON:
                key = (tensor.given.name, tensor.reason)
                for_target[key] = for_target.get(key, 0) + 1
        sentences += [
            f"{count} of {len(weights)} weights get {given} for target {self.target}: {reason}"
            for (given, reason), count in for_target.items()
        ]
        return tuple(sentences)

    def require_all(self) -> None:
        """Refuse a plan with downgrades (`--strict`).

        Raises:
            DowngradeError: there are some; it names each.
        """
        if self.downgrades:
            raise DowngradeError(
                f"recipe '{self.title}' cannot be applied everywhere; {len(self.downgrades)} "
                f"{'exception' if len(self.downgrades) == 1 else 'exceptions'}: {'; '.join(self.downgrades)}.",
                remedy="Omit --strict to accept this, or choose another recipe.",
            )

    def to_json(self) -> dict[str, Any]:
        """The complete plan as plain data for `json.dumps`; `from_json` reads it back (`planning.plan_json`)."""
        return {
            "recipe": recipe_to_json(self.recipe),
            "rules": list(self.rules),
            "effort": self.effort,
            "steps": [name for name, step in STEP_NAMES.items() if step in self.steps],
            "target": self.target,
            "tensors": [tensor_to_json(tensor, self.recipe) for tensor in self.tensors],
            "nodes": nodes_to_json(self.nodes, self.tensors),
            "scale_groups": [list(group) for group in self.scale_groups],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Plan":
        """The plan that `to_json` wrote.

        Raises:
            SchemeError: something is missing or of the wrong kind; `data` may come from a hostile file.
        """
        with readable():
            recipe = recipe_from_json(data["recipe"])
            tensors = tuple(tensor_from_json(each, recipe) for each in objects(data["tensors"]))
            return Plan(
                recipe,
                tensors,
                nodes_from_json(objects(data["nodes"]), tensors),
                tuple(texts(group) for group in data["scale_groups"]),
                steps_from_json(texts(data["steps"])),
                text(data["effort"]),
                text(data["target"]),
                texts(data["rules"]),
            )


def _downgrade(tensor: TensorPlan) -> str:
    if tensor.given is not None:
        return f"{tensor.tensor}: {tensor.reason}"
    return f"{tensor.tensor} ({_share(tensor.share)} of the weights' bytes) stays float: {tensor.reason}"


def _share(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"

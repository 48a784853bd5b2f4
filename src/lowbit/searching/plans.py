"""Plans of uniform recipes and of what a search composed, and the bytes that their files take."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from lowbit.formats.onnx.write import to_onnx
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.plan_file import followable
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.searching.candidates import Bench, file_content
from lowbit.searching.choices import planned
from lowbit.searching.sizes import weighed


@dataclass(frozen=True)
class Plans:
    """What one search decides on; no file is weighed twice.

    Attributes:
        bench: what candidates are made with.
        effort: that codes are chosen with.
    """

    bench: Bench
    effort: str
    _bytes: dict[Hashable, int] = field(default_factory=dict, repr=False)

    def of_recipe(self, name: str) -> Plan:
        """That gives every layer one recipe, with all its steps."""
        return followable(self.bench.model, plan(self.bench.model, parse_recipe(name), effort=self.effort))

    def of_choice(self, choice: Mapping[str, str]) -> Plan:
        """That gives each weight its recipe."""
        return followable(self.bench.model, planned(self.bench.model, choice, self.effort))

    def recipe_bytes(self, name: str) -> int:
        """Bytes of a uniform recipe's file, but for what its codes say."""
        return self._weighed((name,), lambda: self.of_recipe(name))

    def choice_bytes(self, choice: Mapping[str, str]) -> int:
        """Bytes of the file of a choice, likewise."""
        return self._weighed(tuple(choice.items()), lambda: self.of_choice(choice))

    def _weighed(self, key: Hashable, decided: Callable[[], Plan]) -> int:
        if key not in self._bytes:
            self._bytes[key] = len(file_content(self.bench, to_onnx(weighed(self.bench.model, decided()))))
        return self._bytes[key]

"""The search for the archive that meets a goal, each trial being a whole pass whose archive is written and weighed.

- `size`, `bits_per_weight`: the pass itself is steered to the size (`rate.control`). What the archive takes more or
  less than the bits that the pass ended at is made good by the next one; the largest archive that fits wins. Mostly the
  first does. Beside it stands the archive of a recipe that fills the size (`rate.fixed`); on images that neither was
  fitted to, the closer one wins. Effort `best` begins with what `balanced` gives.
- `max_drop`: from many bits to few, in steps that are known before any of the evaluation images is looked at; each
  trial is certified on these images (never those of calibration), until one is not. In that order none of the error
  allowed has to be shared among the trials (`lowbit.certainty.certificate`), and all images certify;
  docs/decisions/068 compares this with bisection. All passes are at the effort asked for: a lower one loses far more at
  the same multiplier (8 points against 0.8 on the study's model at 1.6 bits per weight).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np

from lowbit.data.dataset import Dataset
from lowbit.errors import SchemeError
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.formats.record import record, recorded
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.progress import Progress
from lowbit.quantization.passes.candidate import Candidate, assembled, plain_candidate, plain_codes, plain_graph
from lowbit.quantization.passes.sensitivity import sensitivities
from lowbit.quantization.passes.validation import Distances, Validation, fitting_and_judging
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.quantize import follow
from lowbit.quantization.quantized import Quantized
from lowbit.quantization.rate.allocation import Allocation
from lowbit.quantization.rate.beginning import in_float, in_integers
from lowbit.quantization.rate.control import Forecast, RateControl, bits_for
from lowbit.quantization.rate.fixed import recipe_filling
from lowbit.quantization.rate.kept import KeptPasses, Tried
from lowbit.quantization.rate.packed import Packed
from lowbit.quantization.rate.trials import Trials
from lowbit.quantization.solving.effort import EFFORTS, Effort

CLOSE_ENOUGH = 0.98  # share of the size asked for from which an archive is taken
MOST_TRIALS = 8
SENSITIVITY_EFFORT = "fast"
# Per weight, of the trials for a drop: steps of about an eighth of what is left, after two that find networks for which
# only many bits will do.
DROP_BITS = (8.0, 5.5, 4.25, 3.6, 3.1, 2.7, 2.35, 2.05, 1.8, 1.6, 1.4, 1.2, 1.0)


@dataclass
class Search:
    """What stays the same from trial to trial, and the trials so far.

    Attributes:
        model: the float model.
        images: calibration images.
        data: images that trials are measured on; None measures on the calibration images that judge.
        effort: of every trial.
        short_names: whether inner tensors are renamed.
        threads: that share the images; 0 takes as many as there are cores.
        progress: told after every layer.
        target: processor that files compute in integers for; empty where only weights become codes.
        kept: passes that an earlier run finished, and those of this one.
        trials: what is measured, and all trials so far.
    """

    model: Model
    images: Dataset
    data: Dataset | None
    effort: Effort
    short_names: bool
    threads: int
    progress: Progress
    target: str = ""
    kept: KeptPasses = field(default_factory=KeptPasses)
    _judged: dict[bytes, Distances] = field(default_factory=dict, init=False)  # by archive

    def __post_init__(self) -> None:
        self.fitting, self.judging = fitting_and_judging(self.model, self.images)
        self.trials = Trials(self.model, self.judging, self.data, short_names=self.short_names, threads=self.threads)

    @cached_property
    def validation(self) -> Validation:
        """What judges archives of the same size."""
        return Validation(self.model, self.judging, threads=self.threads)

    @cached_property
    def allocation(self) -> Allocation:
        """The plan and the sensitivity of each layer, once for all trials."""
        begin = self.begin
        names = {tensor.tensor for tensor in begin.plan.quantized}
        nodes = [layer.node for layer in layers(begin.base) if layer.weight in names]
        nodes = [node for node in nodes if node not in begin.byte_layers]
        effort = EFFORTS[SENSITIVITY_EFFORT]
        sensitivity = self.kept.sensitivities(
            lambda: sensitivities(begin.base, self.fitting, nodes, effort, threads=self.threads, progress=self.progress)
        )
        return Allocation(begin, sensitivity)

    @cached_property
    def plain(self) -> Candidate:
        """The int8 recipe without any steps taken, whose ranges all recipes in integers share."""
        decision = plan(self.model, parse_recipe("int8", target=self.target), effort=self.effort.name)
        return plain_candidate(self.model, decision, self.fitting, self.threads, self.progress)

    @cached_property
    def begin(self) -> Candidate:
        """What the network computes in."""
        if not self.target:
            begin = in_float(self.model, self.effort)
        else:
            begin = in_integers(self.model, self.plain, (self.fitting, self.judging), self.threads, self.progress)
        return replace(begin, graph=recorded(begin.graph, self.record))

    @cached_property
    def record(self) -> dict[str, str]:
        """What the files say of their making."""
        return record(self.model, calibration=self.images, evaluation=self.data)

    @cached_property
    def forecast(self) -> Forecast:
        """Of the bits of each layer."""
        return Forecast(self.allocation.model, self.allocation.sensitivity)

    def to_size(self, most: int) -> Packed:
        """The closest archive of at most so many bytes.

        Raises:
            SchemeError: no archive is that small.
        """
        steered = [self.allocated(most, effort) for effort in self.efforts]
        if any(len(packed.archive) > most for packed in steered):
            raise SchemeError(
                f"no archive of at most {most:,} bytes was found; the smallest tried takes "
                f"{min(trial.archive_bytes for trial in self.trials.records):,}.",
                where=self.model.source,
                remedy="Ask for a little more.",
            )
        fixed = [packed for family in self.families if (packed := self.fixed(family, most)) is not None]
        return self.done(self.closest([*steered, *fixed]))

    @property
    def efforts(self) -> tuple[Effort, ...]:
        """Of passes: at effort `best` there is also the one of `balanced`."""
        return (EFFORTS["balanced"], self.effort) if self.effort.name == "best" else (self.effort,)

    @property
    def families(self) -> tuple[str, ...]:
        """Of recipes that are tried; code books take twice as long as linear grids and are little closer."""
        families = ("int", "icluster") if self.target else ("linear", "cluster")
        return families if self.effort.name == "best" else families[:1]

    def closest(self, archives: Sequence[Packed]) -> Packed:
        """The first of some archives, or one that is closer beyond chance on images that judge."""
        best, *others = archives
        if not others:
            return best
        distances = self._distances(best)
        for other in others:
            theirs = self._distances(other)
            if theirs.closer_than(distances):
                best, distances = other, theirs
        return best

    def _distances(self, packed: Packed) -> Distances:
        if packed.archive not in self._judged:
            assert packed.quantized is not None
            self._judged[packed.archive] = self.validation.distances(packed.quantized.graph)
        return self._judged[packed.archive]

    @cached_property
    def least(self) -> int:
        """Bytes that the archive takes with every weight zero."""
        return self.trials.size(self.allocation.emptied())

    def allocated(self, most: int, effort: Effort, *, filled: float = CLOSE_ENOUGH) -> Packed:
        """The largest archive of at most so many bytes whose bits are allocated; if none was found, the smallest tried.

        Args:
            most: bytes.
            effort: of the passes.
            filled: share of the bytes from which an archive is taken.

        Raises:
            SchemeError: no archive can be that small.
        """
        least = self.least
        if most < least:
            zero = "every weight of a layer" if self.allocation.others else "every weight"
            raise SchemeError(
                f"{most:,} bytes are impossible: with {zero} zero the archive still takes {least:,}.",
                where=self.model.source,
                remedy="Ask for more" + ("." if self.short_names else ", or for short names, which take less."),
            )
        wanted = most * (1 + filled) / 2
        best, smallest, aim = None, None, wanted
        known: list[tuple[float, int]] = [(0.0, least)]  # bits that were aimed at, bytes of the archive
        bits = bits_for(known, wanted)
        control = RateControl.towards(self.forecast, bits)
        for number in range(MOST_TRIALS):
            packed = self.trial(control, effort)
            taken = len(packed.archive)
            if smallest is None or taken < len(smallest.archive):
                smallest = packed
            if taken <= most and (best is None or taken > len(best.archive)):
                best = packed
            if filled * most <= taken <= most or (taken <= most and self.forecast.is_finest(control.multiplier)):
                break
            if best is not None and taken in {size for _, size in known}:
                break  # sizes of small networks have gaps
            known.append((bits, taken))
            if best is not None:
                aim = wanted
            elif number > 0:  # it misleads again: more has to be left over
                aim = max(least, aim - (taken - wanted))
            bits = bits_for(known, aim)
            control = RateControl.towards(self.forecast, bits, control.ratio)
        found = best or smallest
        assert found is not None
        return found

    def fixed(self, family: str, most: int) -> Packed | None:
        """The archive of the recipe that fills a size; None if there is none that small."""

        @cache
        def size_of(recipe: Recipe) -> int:
            return self.trials.size(self.plain_graph(self.planned(recipe)))

        room = float(most)
        for _ in range(2):
            recipe = recipe_filling(family, room, self.trials.weights, size_of)
            if recipe is None:
                return None
            packed = self.fixed_trial(self.planned(recipe))
            if len(packed.archive) <= most:
                return packed
            room = min(room * most / len(packed.archive), size_of(recipe) - 1)
        return None

    def planned(self, recipe: Recipe) -> Plan:
        """The plan of a recipe of fixed width."""
        recipe = parse_recipe(recipe, target=self.target) if self.target else recipe
        return plan(self.model, recipe, effort=self.effort.name)

    def plain_graph(self, decision: Plan) -> QuantizedGraph:
        """What a plan's file will about be, without steps."""
        if not self.target:
            return recorded(plain_graph(self.model, decision), self.record)
        plain, codes = self.plain, plain_codes(self.model, decision)
        graph = assembled(self.model, decision, codes, {}, plain.statistics, activations=plain.graph.activations)
        return recorded(graph, self.record)

    def to_drop(self, most: float, *, confidence: float) -> Packed:
        """The smallest archive that is certified to lose at most so many points; if none is, the most cautious one.

        Args:
            most: points of accuracy, or percent of changed predictions without labels.
            confidence: that the archive loses no more on other images.

        Raises:
            SchemeError: the network has no classes.
        """
        self.trials.require_classes()
        self.trials.max_drop, self.trials.confidence = most, confidence
        best: Packed | None = None
        for bits in DROP_BITS:
            multiplier = self.forecast.multiplier(bits * self.forecast.weights(self.forecast.nodes))
            packed = self.trial(RateControl(self.forecast, multiplier), self.effort)
            holds = packed.certificate is not None and packed.certificate.holds
            if best is None or (holds and len(packed.archive) <= len(best.archive)):
                best = packed
            if not holds:
                break
        assert best is not None
        return self.done(best)

    def done(self, best: Packed) -> Packed:
        """The winner with all trials, its own last."""
        own = best.trials[0]
        return replace(best, trials=(*(trial for trial in self.trials.records if trial is not own), own))

    def fixed_trial(self, decision: Plan) -> Packed:
        """The network by a plan: written, weighed and measured."""
        settings = decision.to_json()
        if (found := self._taken(settings)) is not None:
            return found[0]
        quantized = follow(self.model, decision, self.images, threads=self.threads, progress=self.progress)
        packed = self.trials.measured(quantized, None)
        self.kept.keep(packed, self._tried(packed), settings)
        return packed

    def trial(self, control: RateControl, effort: Effort) -> Packed:
        """The network as it is steered: written, weighed and measured."""
        settings = (effort.name, control.multiplier, control.goal, control.ratio)
        if (found := self._taken(*settings)) is not None:
            packed, tried = found
            control.multiplier, control.ratio = tried.multiplier or 0.0, tried.ratio or 0.0
            return packed
        _ = self.trials.reference  # before the pass, whose memory it would come on top of
        graph = self.allocation.solve(control, self.fitting, effort, self.threads, self.progress)
        packed = self.trials.measured(Quantized(self.allocation.given(graph), graph), control.mean_multiplier)
        tried = replace(self._tried(packed), multiplier=control.multiplier, ratio=control.ratio)
        self.kept.keep(packed, tried, *settings)
        return packed

    def _taken(self, *settings: object) -> tuple[Packed, Tried] | None:
        found = self.kept.take(*settings)
        if found is not None:
            packed, tried = found
            self.trials.records.append(tried.trial)
            self._judged[packed.archive] = Distances(np.array(tried.distances))
        return found

    def _tried(self, packed: Packed) -> Tried:
        """What is kept of a trial: its distances too, since an archive that was taken up has no codes to judge."""
        if self.kept.folder is None or self.trials.max_drop is not None:
            return Tried(packed.trials[0], ())
        return Tried(packed.trials[0], tuple(self._distances(packed).values.tolist()))

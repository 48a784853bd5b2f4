"""One price of a bit for the whole network, what it gives, and the search for the price that a goal asks for.

The price is found by the dial, each trial being a whole pass whose archive is written and weighed:

- `size`, `bits_per_weight`: first guess from the order-0 entropy of the rounded weights; then one pass at the lowest
  effort, in which each layer is solved at several prices, says how bytes follow from prices; then corrected by what the
  archive really takes; the largest archive that fits wins.
- `max_drop`: bisection on the points of accuracy lost on labelled images (never those of calibration); without labels,
  on the percentage of predictions that change, which the points lost cannot exceed. The winner was chosen on these
  images, the smallest of several that pass, so its drop on others is to be expected a little larger.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.divergence import answers, mean_kl
from lowbit.calibration.moments import Moments
from lowbit.data.images import Images
from lowbit.errors import SchemeError
from lowbit.files import write_atomically
from lowbit.formats import archive
from lowbit.formats.encoded import Codes, Encoded
from lowbit.formats.onnx import to_onnx
from lowbit.formats.shortened import shortened
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.packing.entropy import entropy_bits
from lowbit.progress import Progress
from lowbit.quantization.effort import EFFORTS, Effort
from lowbit.quantization.plan import Plan, plan
from lowbit.quantization.prefix import Replacement, walk
from lowbit.quantization.quantize import Quantized
from lowbit.quantization.rate import LARGEST, solve_rate
from lowbit.quantization.recipes import Recipe
from lowbit.quantization.refit import refit_bias, refit_weights
from lowbit.quantization.rounding import Single, damped
from lowbit.quantization.sensitivity import Sensitivity, sensitivities
from lowbit.quantization.solve import DAMPING, REFIT_DAMPING
from lowbit.schemes.linear import Linear

RECIPE = "rate"
FINER = 0.25
CHEAPEST, DEAREST = 1e-26, 1e4  # prices between which a dial may turn
FIT = 0.98  # an archive of this share of the size asked for is close enough
TRIALS = 7
AROUND = (0.4, 1.0, 2.5)  # times the guessed price: a factor of 4 is about a bit a weight
SEARCH = "fast"  # effort of what only looks for the price
CAUTION = 0.9  # how much less to aim at after archives that were too large
FIRST_BITS_A_BYTE = 8.4  # estimated bits for a byte of archive, before there was one: contexts save a little
DROP_TRIALS = 7
FIRST_BITS = 3.0  # where the search for a drop begins
JUDGES = 256

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Trial:
    """One pass at one price.

    Attributes:
        price: nats of KL (estimated) for a bit.
        archive_bytes: of the whole archive.
        bits_per_weight: all bytes of the archive, in bits for each weight.
        kl: mean KL from float in nats, on `data` if given, else on calibration images (which it was fitted to).
        drop: points of accuracy lost on `data`, or percent of predictions changed without labels; None without `data`.
    """

    price: float
    archive_bytes: int
    bits_per_weight: float
    kl: float
    drop: float | None


@dataclass(frozen=True)
class Packed:
    """An archive, and how it was found.

    Attributes:
        archive: the content of the `.lowbit` file.
        content: the ONNX file in it.
        quantized: plan and codes; None if a file was packed as it stood.
        trials: every price that was tried; the last one is that of the archive. Empty without a dial.
    """

    archive: bytes
    content: bytes
    quantized: Quantized | None = None
    trials: tuple[Trial, ...] = ()

    def save(self, path: Path | str) -> Path:
        """Write the archive, whole or not at all.

        Raises:
            OutputError: the folder is not writable, or the disk is full.
        """
        return write_atomically(path, self.archive)


@dataclass
class Search:
    """What stays the same from trial to trial, and the trials so far."""

    model: Model
    plan: Plan
    images: Images
    data: Images | None
    effort: Effort
    short_names: bool
    threads: int
    progress: Progress
    sensitivity: dict[str, Sensitivity]
    reference: Array
    weights: int
    trials: list[Trial]

    @staticmethod
    def begin(
        model: Model,
        images: Images,
        data: Images | None,
        effort: Effort,
        short_names: bool,
        threads: int,
        progress: Progress,
    ) -> "Search":
        """Plan, sensitivities and float answers, once for all prices."""
        decision = plan(model, Recipe(RECIPE, Linear(8, per="tensor")), effort=effort.name, with_images=False)
        names = {tensor.tensor for tensor in decision.quantized}
        chosen = [layer.node for layer in layers(model) if layer.weight in names]
        found = sensitivities(model, images, chosen, EFFORTS[SEARCH], threads=threads, progress=progress)
        judges = images if data is None else data
        limit = min(JUDGES, judges.count) if data is None else judges.count
        reference = answers(model.to_bytes(), model, judges, limit=limit, threads=threads)
        weights = sum(model.weights[name].size for name in {layer.weight for layer in layers(model)})
        return Search(
            model, decision, images, data, effort, short_names, threads, progress, found, reference, weights, []
        )

    def to_size(self, most: int) -> Packed:
        """The best archive of at most so many bytes."""
        least = len(archive.pack(self.content(self.emptied())))
        if most < least:
            raise SchemeError(
                f"{most:,} bytes are impossible: with every weight zero the archive still takes {least:,}.",
                where=self.model.source,
                remedy="Ask for more" + ("." if self.short_names else ", or for short names, which take less."),
            )
        aim, best = most * (1 + FIT) / 2, None
        # (estimated bits of codes, bytes of the archive): what is known, and how one follows from the other.
        known: list[tuple[float, int]] = [(0.0, least)]
        price = self.price_for(_between(known, aim))
        if self.effort.name != SEARCH:
            # What an archive takes depends little on the effort, so the curve is learned at the lowest, in one pass.
            known += self.curve(price)
            price = self.price_for(_between(known, aim))
        for number in range(TRIALS):
            found = self.trial(price, self.effort)
            taken = len(found.archive)
            if taken <= most and (best is None or taken > len(best.archive)):
                best = found
            if FIT * most <= taken <= most or (taken <= most and self.step_is_finest(price)):
                break
            known = _shifted(known, self.estimate(price), taken)
            # The curve passes through the last archive now; if it misleads again, more has to be left over.
            again = best is None and number > 0
            aim = least + CAUTION * (aim - least) if again else most * (1 + FIT) / 2
            price = self.price_for(_between(known, aim))
        if best is None:
            raise SchemeError(
                f"no archive of at most {most:,} bytes was found; the smallest tried takes "
                f"{min(trial.archive_bytes for trial in self.trials):,}.",
                where=self.model.source,
                remedy="Ask for a little more.",
            )
        return self.done(best)

    def to_drop(self, most: float) -> Packed:
        """The smallest archive found that loses at most so many points."""
        price = self.price_for(FIRST_BITS * self.weights)
        good: tuple[float, Packed] | None = None
        bad: float | None = None
        for _ in range(DROP_TRIALS):
            found = self.trial(price, self.effort)
            drop = self.trials[-1].drop
            if drop is not None and drop <= most:
                good = price, found
            else:
                bad = price
            if good is None:
                if price <= CHEAPEST or self.step_is_finest(price):
                    break
                price /= 8
            elif bad is None:
                price *= 4
            elif bad / good[0] < 1.2:
                break
            else:
                price = math.sqrt(good[0] * bad)
        if good is None:
            raise SchemeError(
                f"at most {most:g} points lost was not reached: {self.trials[-1].drop:.2f} are lost at "
                f"{self.trials[-1].bits_per_weight:.2f} bits a weight.",
                where=self.model.source,
                remedy="Allow a larger drop, give more calibration images, or use a recipe of 8 or 16 bits.",
            )
        return self.done(good[1])

    def curve(self, price: float) -> list[tuple[float, int]]:
        """(estimated bits, archive's bytes) at the prices around one, from one pass whose prefix is solved at it."""
        bits = dict.fromkeys(AROUND, 0.0)

        def aside(layer: Layer, moments: Moments, own: float) -> None:
            target, second = _problem(layer, self.model.weights[layer.weight], moments)
            for factor in AROUND:
                bits[factor] += solve_rate(layer, target, second, factor * own).bits

        taken = len(archive.pack(self.content(self.solve(price, EFFORTS[SEARCH], aside))))
        here = bits[1.0]
        return [(self.estimate(factor * price), round(taken + (total - here) / 8)) for factor, total in bits.items()]

    def done(self, best: Packed) -> Packed:
        """The winner with all trials, its own last."""
        own = best.trials[0]
        return replace(best, trials=(*(trial for trial in self.trials if trial is not own), own))

    def estimate(self, price: float) -> float:
        """Order-0 bits of all weights rounded to the steps of a price."""
        total = 0.0
        for layer in layers(self.model):
            if layer.node in self.sensitivity:
                known = self.sensitivity[layer.node]
                weight = self.model.weights[layer.weight]
                step = max(known.step * math.sqrt(price / known.cost), float(np.abs(weight).max()) / LARGEST, 1e-30)
                codes = np.rint(weight / np.float32(step)).astype(np.int32) + LARGEST + 1
                total += entropy_bits(codes)
        return total

    def step_is_finest(self, price: float) -> bool:
        """Whether no smaller price could change anything."""
        return self.estimate(price) >= self.estimate(CHEAPEST) * 0.999

    def price_for(self, bits: float) -> float:
        """The price at which the estimate gives so many bits."""
        low, high = math.log(CHEAPEST), math.log(DEAREST)
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.estimate(math.exp(middle)) > bits else (low, middle)
        return math.exp(high)

    def trial(self, price: float, effort: Effort) -> Packed:
        """The network at a price, written, weighed and judged."""
        encoded = self.solve(price, effort)
        content = self.content(encoded)
        packed = archive.pack(content)
        judges = self.images if self.data is None else self.data
        found = answers(content, self.model, judges, limit=len(self.reference), threads=self.threads)
        record = Trial(
            price,
            len(packed),
            8 * len(packed) / max(1, self.weights),
            mean_kl(self.reference, found),
            None if self.data is None else drop(self.reference, found, _labels(self.data)),
        )
        self.trials.append(record)
        return Packed(packed, content, Quantized(self.given(encoded), encoded), (record,))

    def content(self, encoded: Encoded) -> bytes:
        """The ONNX file."""
        content = to_onnx(encoded)
        return shortened(content) if self.short_names else content

    def given(self, encoded: Encoded) -> Plan:
        """The plan with the widths that came out."""
        tensors = tuple(
            replace(tensor, asked=encoded.weights[tensor.tensor].scheme, given=encoded.weights[tensor.tensor].scheme)
            if tensor.tensor in encoded.weights
            else tensor
            for tensor in self.plan.tensors
        )
        return replace(self.plan, tensors=tensors)

    def emptied(self) -> Encoded:
        """The network with every weight zero: what no price can take away."""
        codes: dict[str, Codes] = {
            tensor.tensor: Linear(2, per="tensor").from_codes(
                np.zeros(tensor.shape, np.int8), np.ones(1, np.float32), axis=tensor.axis
            )
            for tensor in self.plan.quantized
        }
        for name in self.movable():
            codes[name] = bias_codes(np.zeros(self.model.weights[name].size), 1.0)
        return Encoded(self.model, weights=codes, metadata={"lowbit.recipe": RECIPE})

    def movable(self) -> tuple[str, ...]:
        """Biases that one quantized layer reads, and nobody else, in the order of the layers."""
        readers: dict[str, int] = {}
        for layer in layers(self.model):
            if layer.bias is not None:
                readers[layer.bias] = readers.get(layer.bias, 0) + (1 if layer.node in self.sensitivity else 2)
        return tuple(name for name, count in readers.items() if count == 1)

    def solve(
        self, price: float, effort: Effort, aside: Callable[[Layer, Moments, float], None] | None = None
    ) -> Encoded:
        """Codes of all layers at a price, each on what the quantized layers before it give.

        Args:
            price: of a bit.
            effort: images and positions to look at.
            aside: told each layer, its moments, and the price in units of its output error.
        """
        codes: dict[str, Codes] = {}
        movable = self.movable()

        def solve(layer: Layer, moments: Moments) -> Replacement:
            own = price / self.sensitivity[layer.node].cost
            if layer.weight not in codes:
                if aside is not None:
                    aside(layer, moments, own)
                codes[layer.weight] = solved_layer(layer, self.model.weights[layer.weight], moments, own)
            decoded = codes[layer.weight].decode()
            if layer.bias not in movable or layer.bias is None:
                return Replacement(decoded, None)
            bias = refit_bias(layer.to_matrix(decoded.astype(np.float64)), moments).reshape(-1)
            rounded = bias_codes(bias, FINER * math.sqrt(6 * own / math.log(2)))
            codes[layer.bias] = rounded
            return Replacement(decoded, rounded.decode())

        walk(
            self.model,
            self.images,
            list(self.sensitivity),
            solve,
            positions=effort.positions,
            limit=min(effort.images, self.images.count),
            threads=self.threads,
            progress=self.progress,
        )
        return Encoded(self.model, weights=codes, metadata={"lowbit.recipe": RECIPE})


def _between(known: list[tuple[float, int]], aim: float) -> float:
    """Estimated bits at which an archive of `aim` bytes is to be expected, straight from what is known."""
    bits, taken = max((point for point in known if point[1] <= aim), key=lambda point: point[1], default=known[0])
    above = [point for point in known if point[1] > aim]
    if above:
        more, larger = min(above, key=lambda point: point[1])
        return max(1.0, bits + (more - bits) * (aim - taken) / (larger - taken))
    each = FIRST_BITS_A_BYTE if bits == 0 else bits / (taken - known[0][1])
    return bits + each * (aim - taken)


def _shifted(known: list[tuple[float, int]], bits: float, taken: int) -> list[tuple[float, int]]:
    """The curve moved so that it passes through an archive that was really made, the empty one left where it is."""
    empty, *points = sorted(known)
    if not points:
        return [empty, (bits, taken)]
    expected = float(np.interp(bits, [0.0, *(at for at, _ in points)], [empty[1], *(size for _, size in points)]))
    moved = [(at, round(size + taken - expected)) for at, size in points if at != bits]
    return [empty, *(point for point in moved if point[1] > empty[1]), (bits, taken)]


def solved_layer(layer: Layer, weight: Array, moments: Moments, price: float) -> Codes:
    """Codes of one layer at a price in units of its own output error, at the width that they need."""
    target, second = _problem(layer, weight, moments)
    found = solve_rate(layer, target, second, price)
    bits = max(2, int(np.abs(found.codes).max()).bit_length() + 1)
    return Linear(bits, per="tensor").from_codes(
        layer.from_matrix(found.codes), np.array([found.step]), axis=layer.channel_axis
    )


def _problem(layer: Layer, weight: Array, moments: Moments) -> tuple[Array, Single]:
    """What a layer's codes should come close to, and H."""
    target = refit_weights(layer.to_matrix(np.asarray(weight, np.float64)), moments, damping=REFIT_DAMPING)
    return target, damped(moments.second, DAMPING)


def bias_codes(bias: npt.NDArray[np.floating], step: float) -> Codes:
    """A bias [channels] in steps of about `step`, in whole bytes: 8 bits if that is enough, else 16."""
    reach = float(np.abs(bias).max(initial=0.0))
    step = max(step, reach / 32767, 1e-30)
    bits = 8 if reach / step < 127.5 else 16
    step = max(step, reach / (127 if bits == 8 else 32767))
    codes = np.rint(bias / np.float32(step)).astype(np.int32)
    return Linear(bits, per="tensor").from_codes(codes, np.array([step], np.float32))


def drop(reference: Array, found: Array, labels: npt.NDArray[np.int64] | None) -> float:
    """Points of accuracy lost, or percent of predictions changed where there are no labels."""
    before, after = reference.argmax(axis=1), found.argmax(axis=1)
    after = np.where(np.isfinite(found).all(axis=1), after, -1)
    if labels is None:
        return 100.0 * float((before != after).mean())
    labels = labels[: len(before)]
    return 100.0 * float((before == labels).mean() - (after == labels).mean())


def _labels(images: Images) -> npt.NDArray[np.int64] | None:
    found = images.labels
    return None if found is None else np.asarray(found, np.int64)

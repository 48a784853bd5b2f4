"""Finished recipes of a comparison, kept until all of it is done (`lowbit.keeping`).

What a recipe's files depend on: model, preprocessing, data, plan, form, engines, versions and processor. Measurements
are not kept: times of one comparison belong to one run.
"""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lowbit.data.dataset import Dataset, digest_of
from lowbit.errors import LowbitError, ModelError
from lowbit.formats.record import tools
from lowbit.graph.model import Model
from lowbit.graph.weights import weights_by_name
from lowbit.keeping import DAMAGES, called, keeping, known_of
from lowbit.measurement.details import Step
from lowbit.measurement.engine_files import Destination, EngineFile, engine_files
from lowbit.measurement.rows import Candidate
from lowbit.quantization.planning.plan import Plan
from lowbit.typed_json import build

WEIGHTS = "weights.npz"
Finished = tuple[list[Candidate], Mapping[str, ModelError], str]


@dataclass(frozen=True)
class Refusal:
    """Why a file of this name could not be written, and where in the model."""

    name: str
    what: str
    where: str


@dataclass(frozen=True)
class KeptRecipe:
    """What `compare` knows of a recipe once its files are written; see `rows.Candidate`."""

    files: tuple[str, ...]
    refused: tuple[Refusal, ...]
    target: str
    bits: int | None
    schemes: Mapping[str, str]
    reasons: Mapping[str, str]
    notes: tuple[str, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Kept:
    """Where finished recipes are kept, and what all of them depend on.

    Attributes:
        folder: made when the first recipe is finished.
        destination: the model, and where its files are to stand.
        calibration: samples that codes are fitted to, if there are any.
    """

    folder: Path
    destination: Destination
    calibration: Dataset | None

    def take(self, decision: Plan, engines: Sequence[str]) -> Finished | None:
        """A recipe that an earlier run finished, its files put in their places; None if there is none."""
        place = self._place(decision, engines)
        try:
            known = build(KeptRecipe, known_of(place))
            files = {self.destination.path(decision, file): file for file in engine_files(decision, engines)}
            written = [(path, file) for path, file in files.items() if path.name in known.files]
            if not written:
                return None
            weights = weights_by_name(self.destination.model)
            if (place / WEIGHTS).exists():
                with np.load(place / WEIGHTS, allow_pickle=False) as arrays:
                    weights = dict(zip(weights, (arrays[name] for name in arrays.files), strict=True))
            for path, _ in written:
                shutil.copyfile(place / path.name, path)
        except (*DAMAGES, LowbitError):
            return None
        refused = {each.name: ModelError(each.what, where=each.where) for each in known.refused}
        return _candidates(decision, known, written, weights), refused, known.target

    def keep(self, decision: Plan, engines: Sequence[str], finished: Finished) -> None:
        """Keep a recipe whose files have just been written.

        Raises:
            OutputError: the folder cannot be written.
        """
        candidates, refused, target = finished
        if not candidates:
            return
        first = candidates[0]
        known = KeptRecipe(
            tuple(candidate.path.name for candidate in candidates),
            tuple(Refusal(name, error.what, error.where) for name, error in refused.items()),
            *(target, first.bits, first.schemes, first.reasons, first.notes, first.steps),
        )
        place = self._place(decision, engines)
        with keeping(place, dataclasses.asdict(known)):
            for candidate in candidates:
                shutil.copyfile(candidate.path, place / candidate.path.name)
            if (weights := first.float_weights) and not _same(weights, self.destination.model):
                np.savez(place / WEIGHTS, *weights.values())

    def _place(self, decision: Plan, engines: Sequence[str]) -> Path:
        model, data = self.destination.model, self.calibration
        how = model.preprocessing
        others = {} if data is None else {name: digest_of(each.array) for name, each in data.others.items()}
        name = called(
            *(model.source, model.sha256, how and how.to_json(), decision.to_json(), list(engines)),
            *(dataclasses.asdict(self.destination.form), data and data.fingerprint(), others, tools()),
        )
        return self.folder / name


def _candidates(
    decision: Plan,
    known: KeptRecipe,
    written: Sequence[tuple[Path, EngineFile]],
    weights: Mapping[str, np.ndarray],
) -> list[Candidate]:
    return [
        Candidate(
            recipe=decision.recipe.name,
            path=path,
            bits=known.bits,
            schemes=known.schemes,
            reasons=known.reasons,
            notes=known.notes,
            steps=() if number else known.steps,  # they are told with the recipe's first file
            float_weights=weights,
            engines=file.engines,
        )
        for number, (path, file) in enumerate(written)
    ]


def _same(weights: Mapping[str, np.ndarray], model: Model) -> bool:
    """Whether no channel was rescaled before its weights were encoded."""
    own = weights_by_name(model)
    return weights.keys() == own.keys() and all(np.array_equal(weights[name], own[name]) for name in own)

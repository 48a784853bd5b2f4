"""Finished passes of a search for an archive, kept until the archive is written (`lowbit.keeping`)."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lowbit.errors import ArchiveError
from lowbit.formats.onnx import archive
from lowbit.keeping import DAMAGES, called, keeping, known_of
from lowbit.quantization.passes.sensitivity import Sensitivity
from lowbit.quantization.rate.packed import Packed, Trial
from lowbit.typed_json import build

ARCHIVE = "archive.lowbit"
SENSITIVITY = "sensitivity"


@dataclass(frozen=True)
class Sensitivities:
    """What an error in each layer costs, by node."""

    layers: Mapping[str, Sensitivity]


@dataclass(frozen=True)
class Tried:
    """What a search knows of a trial besides its archive.

    Attributes:
        trial: what came out.
        distances: from float, image by image, by which archives of one size are compared; empty where none are.
        multiplier: that the pass ended with; None for a recipe of fixed width.
        ratio: see `RateControl`; None for a recipe of fixed width.
    """

    trial: Trial
    distances: tuple[float, ...]
    multiplier: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class KeptPasses:
    """Where finished passes are kept, and what all of them depend on.

    Attributes:
        folder: made when the first pass is finished; None keeps none.
        depends: on what, as JSON has it.
    """

    folder: Path | None = None
    depends: tuple[object, ...] = ()

    def sensitivities(self, measure: Callable[[], Mapping[str, Sensitivity]]) -> Mapping[str, Sensitivity]:
        """Those that an earlier run measured, else what `measure` gives, which is kept."""
        place = self._place(SENSITIVITY)
        if place is None:
            return measure()
        try:
            return build(Sensitivities, known_of(place)).layers
        except DAMAGES:
            measured = measure()
        with keeping(place, asdict(Sensitivities(measured))):
            return measured

    def take(self, *settings: object) -> tuple[Packed, Tried] | None:
        """A trial of these settings that an earlier run finished, without its codes; None if there is none."""
        place = self._place(*settings)
        if place is None:
            return None
        try:
            tried = build(Tried, known_of(place))
            data = (place / ARCHIVE).read_bytes()
            return Packed(data, archive.unpack(data), trials=(tried.trial,)), tried
        except (*DAMAGES, ArchiveError):
            return None

    def keep(self, packed: Packed, tried: Tried, *settings: object) -> None:
        """Keep a trial.

        Raises:
            OutputError: the folder cannot be written.
        """
        place = self._place(*settings)
        if place is not None:
            with keeping(place, asdict(tried)):
                (place / ARCHIVE).write_bytes(packed.archive)

    def _place(self, *settings: object) -> Path | None:
        return None if self.folder is None else self.folder / called(*self.depends, *settings)

"""What the search for an archive gives: the archive, and what was tried."""

from dataclasses import dataclass
from pathlib import Path

from lowbit.certainty.certificate import Certificate
from lowbit.files import check_ending, write_atomically
from lowbit.quantization.quantized import Quantized


@dataclass(frozen=True)
class Trial:
    """One pass.

    Attributes:
        recipe: `rate`, or the recipe of fixed width that was packed.
        multiplier: nats of KL (estimated) that one bit is worth; where the pass was steered, the mean over layers; None
            for a recipe.
        archive_bytes: of the whole archive.
        bits_per_weight: all bytes of the archive, in bits per weight.
        distance: mean distance from float, on `data` if given, else on calibration images that judge; None where no
            output has something for each sample.
        measure: what that is: KL in nats for a classifier, else relative squared error of all outputs.
        drop: points of accuracy lost on `data`, or percent of predictions changed without labels; None without `data`.
        certificate: where a drop is the goal, whether it holds on other images.
    """

    recipe: str
    multiplier: float | None
    archive_bytes: int
    bits_per_weight: float
    distance: float | None
    measure: str
    drop: float | None
    certificate: Certificate | None = None


ARCHIVES = (".lowbit",)


@dataclass(frozen=True)
class Packed:
    """An archive, and how it was found.

    Attributes:
        archive: the content of the `.lowbit` file.
        content: the ONNX file in it.
        quantized: plan and codes; None if a file was packed as it stood, or taken up from an earlier run.
        trials: every pass that was tried; the last one is that of the archive. Empty without a dial.

    >>> packed = lowbit.pack("model.onnx", short_names=True)
    >>> len(packed.archive) < len(packed.content)
    True
    """

    archive: bytes
    content: bytes
    quantized: Quantized | None = None
    trials: tuple[Trial, ...] = ()

    def __repr__(self) -> str:
        tried = f", the last of {len(self.trials)} that were tried" if len(self.trials) > 1 else ""
        return f"<Packed {len(self.archive):,} bytes of {len(self.content):,}{tried}>"

    @property
    def certificate(self) -> Certificate | None:
        """Whether the drop that was the goal holds on other images; None for other goals."""
        return self.trials[-1].certificate if self.trials else None

    def save(self, path: Path | str) -> Path:
        """Write the archive, whole or not at all.

        Raises:
            OutputError: its name does not end in .lowbit, the folder is not writable, or the disk is full.
        """
        check_ending(path, ARCHIVES)
        return write_atomically(path, self.archive)

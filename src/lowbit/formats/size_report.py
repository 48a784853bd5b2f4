"""What became of a network's bytes, beside what theory and general compressors say: raw -> packed -> entropy-coded.

Three columns by kind: the network as float32, the ONNX file, the archive. The last two sum to their files, and so does
the first where the float file is at hand; else it is what the same numbers take as float32, which says nothing of graph
and scales. Beside them stand the empirical entropy of the codes (order 0, no table, no header), what a fixed width
takes (n bits per weight are n/32 of float), and the control: the float file through zstd -19 and xz -9, which know
nothing of weights. Whoever claims that quantizing made a file smaller has to be smaller than those.
"""

import lzma
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
import zstandard

from lowbit.errors import ModelError
from lowbit.formats.ledger import KINDS, NUMBERS
from lowbit.formats.onnx.archive import is_archive, pack_counted, stored_symbols, unpack
from lowbit.formats.onnx.ledger import count_bytes
from lowbit.packing.archive import section_bytes
from lowbit.packing.entropy import entropy_bits
from lowbit.progress import SILENT, Progress

CONTROLS: dict[str, Callable[[bytes], bytes]] = {
    "zstd -19": lambda data: zstandard.ZstdCompressor(level=19).compress(data),
    "xz -9": lambda data: lzma.compress(data, preset=9),
}
_IN_FLOAT = ("codes", "float_weights", "biases")  # what a float file has, too


@dataclass(frozen=True)
class Sizes:
    """Bytes by kind, and what to hold against them.

    Attributes:
        raw: of the float file, to whose length it sums; if that is not known, of the same numbers as float32.
        packed: of the ONNX file.
        coded: of the archive; None if it was not made. Without coding again an archive only knows codes, numbers
            (scales, biases, code books) and the rest; so too if an older version packed it differently.
        counts: numbers by kind; `codes` are the weights that have codes.
        fixed_bytes: their codes at the fixed width that the ONNX file has.
        entropy_bytes: empirical entropy of their codes, tensor by tensor.
        float_bytes: length of the float file; None if it is not known.
        controls: bytes of the float file through the compressors of `CONTROLS`; empty if that was not asked for.
    """

    raw: Mapping[str, int]
    packed: Mapping[str, int]
    coded: Mapping[str, int] | None
    counts: Mapping[str, int]
    fixed_bytes: int
    entropy_bytes: int
    float_bytes: int | None
    controls: Mapping[str, int]

    @property
    def weights(self) -> int:
        """How many weights have codes."""
        return self.counts["codes"]

    @property
    def entropy_bits(self) -> float | None:
        """Empirical entropy of the codes in bits per weight; None without codes."""
        return 8 * self.entropy_bytes / self.weights if self.weights else None

    @property
    def theoretical_ratio(self) -> float | None:
        """32/n for codes of n bits, averaged over weights; None without codes."""
        return 4 * self.weights / self.fixed_bytes if self.fixed_bytes else None


def sizes(
    data: bytes,
    *,
    against: bytes | None = None,
    coded: bool = False,
    control: bool = False,
    progress: Progress = SILENT,
) -> Sizes:
    """Count an ONNX file or an archive.

    Args:
        data: content of the file.
        against: content of the float file (or an archive of it) that it was made from.
        coded: also entropy-code an ONNX file, kind by kind: about a second per million weights. Of an archive the
            sections are known without.
        control: also compress the float file, some seconds for each 10 MB: `against`, or `data` itself if nothing in
            it is quantized.
        progress: told while the float file is compressed.

    Raises:
        ModelError: no ONNX file; or the control is asked for, and the file is quantized and the float one not given.
        ArchiveError: a damaged archive.
    """
    content = unpack(data) if is_archive(data) else data
    ledger = count_bytes(onnx.load_from_string(content), len(content))
    float_file = None if against is None else unpack(against) if is_archive(against) else against
    if float_file is None and not ledger.counts["codes"]:
        float_file = content
    if control and float_file is None:
        raise ModelError(
            "the control is what compressors make of the float file, and this one is quantized.",
            where="control",
            remedy="Name the float file too: `lowbit inspect FILE --control --against FLOAT.onnx`.",
        )
    raw = {kind: 4 * ledger.counts[kind] for kind in _IN_FLOAT}
    if float_file is not None:
        raw = dict(count_bytes(onnx.load_from_string(float_file), len(float_file)).bytes)
        # In the line of what became of them.
        raw["codes"] = min(4 * ledger.counts["codes"], raw["float_weights"])
        raw["float_weights"] -= raw["codes"]
    archived = _parts(data) if is_archive(data) else None
    if coded:
        again, kinds = pack_counted(content)
        archived = kinds if archived is None or again == data else archived
    return Sizes(
        raw=_used(raw),
        packed=_used(ledger.bytes),
        coded=None if archived is None else _used(archived),
        counts=dict(ledger.counts),
        fixed_bytes=ledger.bytes["codes"],
        entropy_bytes=round(sum(entropy_bits(codes) for codes in stored_symbols(content).values()) / 8),
        float_bytes=None if float_file is None else len(float_file),
        controls=compressed(float_file, progress) if control and float_file is not None else {},
    )


def compressed(data: bytes, progress: Progress = SILENT) -> dict[str, int]:
    """What general compressors make of a file, in bytes by name."""
    names = progress.track(CONTROLS, "compressing the float file", total=len(CONTROLS))
    return {name: len(CONTROLS[name](data)) for name in names}


def _parts(data: bytes) -> dict[str, int]:
    """An archive by its sections."""
    sections = section_bytes(data)
    rest = len(data) - sections["codes"] - sections["numbers"]
    return {"codes": sections["codes"], NUMBERS: sections["numbers"], "graph": rest}


def _used(spent: Mapping[str, int]) -> dict[str, int]:
    return {kind: size for kind in (*KINDS, NUMBERS) if (size := spent.get(kind, 0))}

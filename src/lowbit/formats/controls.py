"""What became of a file's bytes on the way into an archive, beside what theory and a general compressor say.

Three columns, each summing to its file: the file given, the packed ONNX file, the archive. Beside them the empirical
entropy of the codes (order 0, no table, no header), what a fixed width takes (n bits a weight are n/32 of float), and
xz of the file given: a compressor that knows nothing of weights. zstd is no better at it and would be one package more;
`benchmarks/size.py` has it.
"""

import lzma
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from lowbit.formats.archive import is_archive, stored_symbols, unpack
from lowbit.formats.ledger import KINDS, NUMBERS, count_bytes
from lowbit.packing.archive import section_bytes
from lowbit.packing.entropy import entropy_bits

XZ_PRESET = 9


@dataclass(frozen=True)
class Controls:
    """Bytes by kind; the rows of each column sum to the bytes of its file.

    Attributes:
        given: the file that was given.
        packed: the ONNX file in the archive.
        archive: codes, numbers, and all else of the archive as its graph.
        entropy_bytes: empirical entropy of the stored codes, tensor by tensor.
        fixed_bytes: the same codes at their fixed widths.
        float_bytes: the weights behind them as float32.
        xz_bytes: the file given, through xz; None if that was not asked for.
    """

    given: Mapping[str, int]
    packed: Mapping[str, int]
    archive: Mapping[str, int]
    entropy_bytes: int
    fixed_bytes: int
    float_bytes: int
    xz_bytes: int | None


def controls(given: bytes, content: bytes, packed: bytes, *, control: bool) -> Controls:
    """Count a file, its packed form and its archive.

    Args:
        given: content of the ONNX file or archive that was given.
        content: content of the ONNX file in the archive.
        packed: the archive.
        control: also send the file given through xz, some seconds for each 10 MB.

    Raises:
        ModelError: `content` is no ONNX file.
    """
    given = unpack(given) if is_archive(given) else given
    symbols = stored_symbols(content)
    inside = count_bytes(onnx.load_from_string(content), len(content))
    sections = section_bytes(packed)
    return Controls(
        given=_used(count_bytes(onnx.load_from_string(given), len(given)).bytes),
        packed=_used(inside.bytes),
        archive={
            "codes": sections["codes"],
            NUMBERS: sections["numbers"],
            "graph": len(packed) - sections["codes"] - sections["numbers"],
        },
        entropy_bytes=round(sum(entropy_bits(codes) for codes in symbols.values()) / 8),
        fixed_bytes=inside.bytes["codes"],
        float_bytes=4 * inside.counts["codes"],
        xz_bytes=len(lzma.compress(given, preset=XZ_PRESET)) if control else None,
    )


def _used(spent: Mapping[str, int]) -> dict[str, int]:
    return {kind: spent[kind] for kind in KINDS if spent[kind]}

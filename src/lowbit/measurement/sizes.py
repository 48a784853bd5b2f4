"""How small each file could be: entropy-coded, by the entropy of its codes, and what the float file compresses to.

Every ONNX file is coded as `lowbit pack` would do it, so a file can be compared with its archive. On request the first
file is also compressed with zstd -19 and xz -9, which needs no quantization at all. Coding takes at most a second per
million weights, the compressors five seconds on 9 MB.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from lowbit.files import read_model_file
from lowbit.formats.opening import is_litert
from lowbit.formats.size_report import CONTROLS, Sizes, compressed, sizes
from lowbit.measurement.results import Row
from lowbit.progress import SILENT, Progress

LARGEST = 64_000_000  # bytes of a file that is coded without a request
NO_CONTROL = "Nothing was compressed for comparison: the first file is not a float file that holds its own weights."


def with_sizes(
    rows: Sequence[Row],
    files: Sequence[int],
    paths: Sequence[Path],
    *,
    control: bool = False,
    progress: Progress = SILENT,
) -> tuple[Row, ...]:
    """Fill the columns of coded sizes.

    LiteRT files and those whose weights are in another file cannot be archived, and files of more than `LARGEST` would
    take minutes: theirs stay empty.

    Args:
        rows: of the comparison.
        files: for each row, the index of its file.
        paths: of the files, the float file first.
        control: also compress the first file, however large, if it is a float file.
        progress: told after every file.
    """
    measured: list[tuple[Sizes | None, Mapping[str, int]]] = []
    for index, path in enumerate(progress.track(paths, "coding", total=len(paths))):
        first = rows[files.index(index)]
        size = path.stat().st_size
        alone = first.file_bytes == size
        compress = control and index == 0 and alone
        data = read_model_file(path) if alone and (compress or size <= LARGEST) else None
        known = None if data is None or is_litert(path) else sizes(data, coded=size <= LARGEST)
        whole = not first.details.ledger.get("codes") if known is None else known.float_bytes is not None
        measured.append((known, compressed(data) if compress and data is not None and whole else {}))
    return tuple(_with(row, *measured[file]) for row, file in zip(rows, files, strict=True))


def _with(row: Row, known: Sizes | None, controls: Mapping[str, int]) -> Row:
    zstd, xz = (controls.get(name) for name in CONTROLS)
    row = dataclasses.replace(row, zstd_bytes=zstd, xz_bytes=xz)
    if known is None:
        return row
    return dataclasses.replace(
        row,
        archive_bytes=None if known.coded is None else sum(known.coded.values()),
        code_bits=8 * known.fixed_bytes / known.weights if known.weights else None,
        entropy_bits=known.entropy_bits,
        details=dataclasses.replace(row.details, archive_ledger=dict(known.coded or {})),
    )

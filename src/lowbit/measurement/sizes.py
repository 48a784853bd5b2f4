"""How small each file could be: entropy-coded, by the entropy of its codes, and what the float file compresses to.

Every ONNX file is coded as `lowbit pack` would, so a packed file can be held against its archive; if that is asked for,
the first file goes through zstd -19 and xz -9, too: what needs no quantization at all. Coding takes a second for each
million weights at most, the compressors five on 9 MB.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lowbit.formats.controls import CONTROLS, Sizes, compressed, sizes
from lowbit.formats.opening import is_litert, read_file
from lowbit.measurement.results import Row
from lowbit.progress import SILENT, Progress

LARGEST = 64_000_000  # bytes of a file that is coded without having been asked for
NO_CONTROL = "There is no control: the first file is not a float ONNX file that holds its own weights."


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
        files: for each row, which file it is of.
        paths: of the files, the float one first.
        control: also compress the first file, however large; if it is a float one.
        progress: told after every file.
    """
    found: list[Sizes | None] = []
    for index, path in enumerate(progress.track(paths, "coding", total=len(paths))):
        size = path.stat().st_size
        alone = not is_litert(path) and rows[files.index(index)].file_bytes == size
        compress = control and index == 0
        data = read_file(path) if alone and (compress or size <= LARGEST) else None
        known = None if data is None else sizes(data, coded=size <= LARGEST)
        if compress and data is not None and known is not None and known.float_bytes is not None:
            known = dataclasses.replace(known, controls=compressed(data))
        found.append(known)
    return tuple(_with(row, found[file], control=file == 0) for row, file in zip(rows, files, strict=True))


def _with(row: Row, known: Sizes | None, *, control: bool) -> Row:
    if known is None:
        return row
    zstd, xz = (known.controls.get(name) if control else None for name in CONTROLS)
    return dataclasses.replace(
        row,
        archive_bytes=None if known.coded is None else sum(known.coded.values()),
        code_bits=8 * known.fixed_bytes / known.weights if known.weights else None,
        entropy_bits=known.entropy_bits,
        zstd_bytes=zstd,
        xz_bytes=xz,
        details=dataclasses.replace(row.details, archive_ledger=dict(known.coded or {})),
    )

"""A .npz file -> `Source`, read as untrusted input.

Arrays saved with `np.savez` are memory-mapped in the file, so that any number of images takes no memory; arrays saved
with `np.savez_compressed` have to be unpacked, at most 2 GiB of them. Nothing is allocated before the header, the
claimed sizes and the compression ratio have been checked; objects (pickle) are never loaded.
"""

import contextlib
import math
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from lowbit.data import arrays
from lowbit.data.sources import Array, Source
from lowbit.errors import DataError
from lowbit.files import ZIP_DAMAGES, check_has_end
from lowbit.graph.preprocessing import Preprocessing

IMAGE_KEYS = ("images", "x")
LABEL_KEYS = ("labels", "y")
UNPACKED_BYTES = 2 << 30
# Deflate reaches 1032; photographs stay below 3, drawings below 100.
RATIO = 200
RATIO_MATTERS_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
LOCAL_HEADER_BYTES = 30


def from_npz(
    path: Path, preprocessing: Preprocessing | None, *, values: str = "detect", keys: Sequence[str] = IMAGE_KEYS
) -> Source:
    """Images under one of the `keys`, labels, if any, under `labels` or `y`.

    Raises:
        DataError: not a .npz file, damaged, a decompression bomb, no images in it, or as `arrays.from_array`.
    """
    given = read(path, (*keys, *LABEL_KEYS))
    images = next((given[key] for key in keys if key in given), None)
    if images is None:
        wanted = " or ".join(map(repr, dict.fromkeys(keys)))
        raise DataError(
            f"there is no array {wanted}, only {', '.join(names(path)[:10]) or 'nothing'}.",
            where=str(path),
            remedy="Save it with np.savez(path, images=..., labels=...), or name arrays as the model's inputs.",
        )
    labels = next((given[key] for key in LABEL_KEYS if key in given), None)
    return arrays.from_array(images, labels, preprocessing, name=path.name, origin=origin_of(path), values=values)


def origin_of(path: Path) -> tuple[str, str]:
    """Identity of what a file holds."""
    return "npz", str(path.resolve())


def names(path: Path) -> list[str]:
    """Names of the arrays in a file, sorted.

    Raises:
        DataError: not a .npz file, or damaged.
    """
    with _opened(path) as archive:
        return sorted(info.filename.removesuffix(".npy") for info in archive.infolist())


def read(path: Path, keys: Collection[str] | None = None) -> dict[str, Array]:
    """The arrays of a file by name; those saved without compression stay in it.

    Args:
        path: of the file.
        keys: names of the arrays that are wanted, if they are there; None for all.

    Raises:
        DataError: not a .npz file, damaged, or a decompression bomb.
    """
    with _opened(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return {key: _array(archive, member, path) for key, member in members.items() if keys is None or key in keys}


def read_npy(path: Path) -> Array:
    """The array of a .npy file, which stays in it.

    Raises:
        DataError: a device or a pipe, unreadable, damaged, or of another type than numbers.
    """
    check_has_end(path)
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _header(file, str(path))
            offset = file.tell()
        missing = offset + math.prod(shape) * dtype.itemsize - path.stat().st_size
        if missing > 0:
            raise DataError(f"ends {missing} bytes too early.", where=str(path), remedy="Save it again.")
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")
    except (OSError, ValueError, EOFError) as error:
        what = f"cannot read the array: {getattr(error, 'strerror', None) or error}."
        raise DataError(what, where=str(path), remedy="Save it with np.save.") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except ZIP_DAMAGES as e:
        reason = getattr(e, "strerror", None) or e
        raise DataError(f"cannot read the .npz file: {reason}.", where=str(path), remedy="Save it again.") from e


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Array:
    where = f"{path}, {member.filename}"
    with archive.open(member) as file:
        shape, fortran, dtype = _header(file, where)
        data_bytes = math.prod(shape) * dtype.itemsize
        offset = file.tell()
        if data_bytes != member.file_size - offset:
            raise DataError(
                f"the header claims {data_bytes} bytes, the file holds {member.file_size - offset}.", where=where
            )
        order: Any = "F" if fortran else "C"
        if member.compress_type == zipfile.ZIP_STORED:
            while file.read(CHUNK_BYTES):
                pass  # to the end, where the checksum is compared
            start = _data_start(path, member) + offset
            if data_bytes == 0:
                return np.empty(shape, dtype)
            return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)
        _refuse_bomb(member, data_bytes, where)
        data = np.empty(data_bytes, np.uint8)
        filled = 0
        while chunk := file.read(min(CHUNK_BYTES, data_bytes - filled + 1)):
            data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            filled += len(chunk)
        if filled != data_bytes:
            raise DataError(f"ends after {filled} of {data_bytes} bytes.", where=where, remedy="Save it again.")
        return data.view(dtype).reshape(shape, order=order)


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"arrays of version {version} are not read.", where=where, remedy="Save plain numbers.")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file)
    except Exception as error:  # numpy reads it as Python, which has many ways to be wrong
        raise DataError("the header of an array is damaged.", where=where, remedy="Save it again.") from error
    if dtype.kind not in "iufb" or dtype.hasobject or any(side < 0 for side in shape):
        raise DataError(f"arrays of dtype {dtype} are not read.", where=where, remedy="Save uint8 or float32.")
    return shape, fortran, dtype


def _refuse_bomb(member: zipfile.ZipInfo, data_bytes: int, where: str) -> None:
    if data_bytes > UNPACKED_BYTES:
        raise DataError(
            f"{data_bytes >> 20} MiB would have to be unpacked into memory, at most {UNPACKED_BYTES >> 20} are.",
            where=where,
            remedy="Save it uncompressed with np.savez, which is read in place.",
        )
    if data_bytes > RATIO_MATTERS_BYTES and data_bytes > RATIO * max(member.compress_size, 1):
        raise DataError(
            f"{member.compress_size} bytes unpack to {data_bytes} (a decompression bomb?).",
            where=where,
            remedy="Save it uncompressed with np.savez, which is read in place.",
        )


def _data_start(path: Path, member: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: its local header repeats the name and has an extra field of its own."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(LOCAL_HEADER_BYTES)
    if len(header) != LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
        raise DataError("the archive is damaged.", where=str(path), remedy="Save it again.")
    return (
        member.header_offset
        + LOCAL_HEADER_BYTES
        + int.from_bytes(header[26:28], "little")
        + int.from_bytes(header[28:30], "little")
    )

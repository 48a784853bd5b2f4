"""Output files appear whole or not at all: write to a temporary file, fsync, rename.

A failed or interrupted run leaves an existing file untouched and no fragment behind (docs/design.md, invariant 6).
"""

import contextlib
import hashlib
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from lowbit.errors import DataError, ModelError, OutputError
from lowbit.leftovers import make_part

CHUNK_BYTES = 1 << 20
# What this process has written whole so far: who interrupts it is told.
written: list[Path] = []
# What zipfile raises of an archive that is cut, damaged, encrypted, or packed in a way that it does not know.
ZIP_DAMAGES = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
LARGEST_FILE = (1 << 31) - 1  # of a model: what protobuf and flatbuffers can hold
OTHER_NAME = "Choose another name for the output."


def write_atomically(path: Path | str, data: bytes | str) -> Path:
    """Write `data` to `path` whole or not at all; where it is a symbolic link, to the file that it leads to.

    Returns:
        The path written.

    Raises:
        OutputError: it is a folder, a device or a pipe, its folder is not writable, or the disk is full.
    """
    path = replaceable(path)
    payload = data.encode() if isinstance(data, str) else data
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = make_part(path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
            # Temporary files are private; a result should be readable like any other file of this user.
            os.chmod(aside, 0o666 & ~_umask())
            os.replace(aside, path)  # before it is closed, which ends the lock
        written.append(path)
        aside = None
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if aside is not None:
            with contextlib.suppress(OSError):
                os.unlink(aside)
    return path


def check_writable(path: Path | str) -> None:
    """Refuse, before the work, a file that could not be written after it.

    Raises:
        OutputError: as `write_atomically`.
    """
    place = replaceable(path)
    try:
        # Folders that are missing will be made.
        handle, aside = make_part(next(folder for folder in place.absolute().parents if folder.exists()))
        os.close(handle)
        aside.unlink()
    except OSError as error:
        raise _unwritable(place, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write: {error.strerror or error}.",
        where=str(path),
        remedy="Choose an output folder that is writable and has space.",
    )


def replaceable(path: Path | str) -> Path:
    """Where a file of this name is to be written: behind symbolic links.

    Raises:
        OutputError: there is something that is no file, such as a folder, a device or a pipe.
    """
    path = Path(path)
    try:
        place = path.resolve() if path.is_symlink() else path
        is_other = place.exists() and not place.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"is no place for a file: {error}.", where=str(path), remedy=OTHER_NAME) from error
    if is_other:
        what = "is a folder" if place.is_dir() else "is a device or a pipe, not a file"
        raise OutputError(f"{what}: nothing was written.", where=str(path), remedy=OTHER_NAME)
    return place


def check_ending(path: Path | str, endings: Sequence[str]) -> None:
    """Refuse the name of an output that does not say what will be in it.

    Raises:
        OutputError: it ends in none of `endings`.
    """
    if not str(path).endswith(tuple(endings)):
        raise OutputError(
            "its name does not say what kind of file it is.",
            where=str(path),
            remedy=f"Let it end in {' or '.join(endings)}.",
        )


def check_has_end(path: Path) -> None:
    """Refuse to read what is neither file nor folder: a pipe or a device may wait for ever, or never end.

    Raises:
        DataError: it is one.
    """
    try:
        endless = path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, ValueError):  # too long a name, or none: whoever opens it says so
        return
    if endless:
        raise DataError("is a device or a pipe.", where=str(path), remedy="Give a file or a folder.")


def read_model_file(path: Path | str) -> bytes:
    """The bytes of a file that holds a model, of whatever format.

    Raises:
        ModelError: it cannot be read, or is too large for any of them.
        DataError: it is a device or a pipe.
    """
    check_has_end(Path(path))
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_FILE:
                what = f"has {size:,} bytes, the maximum is {LARGEST_FILE:,}."
                raise ModelError(what, where=str(path), remedy="Networks over 2 GB are not supported.")
            return file.read(size)
    except (OSError, ValueError) as error:
        what = f"cannot be read: {getattr(error, 'strerror', None) or error}."
        raise ModelError(what, where=str(path), remedy="Check the path.") from error


def check_apart(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read, by whatever name.

    Raises:
        OutputError: `output` is one of `inputs`.
    """
    for path in inputs:
        with contextlib.suppress(OSError, ValueError):
            if os.path.samefile(output, path):
                raise OutputError("is what the command reads.", where=str(output), remedy=OTHER_NAME)


def sha256_file(path: Path | str) -> str:
    """Hex SHA-256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""Output files appear whole or not at all: write to a temporary file, fsync, rename.

A failed or interrupted run leaves an existing file untouched and no fragment behind (docs/design.md, invariant 6).
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lowbit.errors import OutputError

CHUNK_BYTES = 1 << 20


def write_atomically(path: Path | str, data: bytes | str) -> Path:
    """Write `data` to `path` whole or not at all.

    Returns:
        The path written.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    aside: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a result should be readable like any other file of this user.
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
        aside = None
    except OSError as error:
        raise OutputError(
            f"cannot write: {error.strerror or error}.",
            where=str(path),
            remedy="Choose an output folder that is writable and has space.",
        ) from error
    finally:
        if aside is not None:
            with contextlib.suppress(OSError):
                os.unlink(aside)
    return path


@contextlib.contextmanager
def staged_folder(path: Path | str) -> Iterator[Path]:
    """A folder whose files move into `path` only if the block succeeds; if it fails, a new `path` is removed again.

    Other files in `path` stay as they are.

    Raises:
        OutputError: `path` is a file, not writable, or the disk is full.
    """
    path = Path(path)
    stage: Path | None = None
    new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".lowbit-", dir=path))
        yield stage
        for source in sorted(stage.rglob("*")):
            if source.is_file():
                target = path / source.relative_to(stage)
                target.parent.mkdir(parents=True, exist_ok=True)
                with source.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(source, target)
    except OSError as error:
        raise OutputError(
            f"cannot write: {error.strerror or error}.",
            where=str(path),
            remedy="Choose an output folder that is writable and has space.",
        ) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):  # not empty: the run succeeded, or something else uses it
                path.rmdir()


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

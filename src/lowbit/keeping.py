"""Finished pieces of work, kept until all of it is done: with `--resume` a run that was stopped is taken up after them.

A piece is a folder, called by all that it depends on. An index with a hash of each of its files is written last, so
what is torn, damaged, or made of something else counts as not there.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lowbit.errors import OutputError
from lowbit.files import sha256_file

KEPT = ".lowbit-resume"  # in the folder of the output
INDEX = "index.json"
# What a file or a record that is damaged, or no record at all, may raise while it is read.
DAMAGES = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
kept: list[Path] = []  # pieces that this process has kept so far: who interrupts it is told


def called(*depends: object) -> str:
    """The name of a piece that depends on this, which is written as JSON."""
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:32]


@contextlib.contextmanager
def keeping(place: Path, known: Mapping[str, Any]) -> Iterator[None]:
    """Keep the files that the block writes into `place`, with what is known of them.

    Raises:
        OutputError: they cannot be written.
    """
    try:
        if place.parent.is_symlink():
            raise OSError("it is a link, which is not followed")
        if place.is_symlink():
            place.unlink()
        place.mkdir(parents=True, exist_ok=True)
        (place / INDEX).unlink(missing_ok=True)
        for path in place.iterdir():
            # What somebody else put there would lead elsewhere; another run's own files stay, as it may be at work.
            if path.is_symlink() or not path.is_file() or path.stat().st_nlink > 1:
                path.unlink()
        yield
        files = {path.name: sha256_file(path) for path in sorted(place.iterdir())}
        (place / INDEX).write_text(json.dumps({"files": files, "known": known}))
        kept.append(place)
    except OSError as error:
        if not place.parent.is_symlink():
            forget(place)  # a torn piece is of no use, and takes space that may be what is missing
        remedy = "Choose an output folder that is writable and has space, or leave --resume out."
        raise OutputError(f"cannot write: {error.strerror or error}.", where=str(place), remedy=remedy) from error


def known_of(place: Path) -> Mapping[str, Any]:
    """What is known of a piece that is whole.

    Raises:
        One of `DAMAGES`: it is not there, or not whole.
    """
    index = json.loads(_regular(place / INDEX).read_bytes())
    for name, sha256 in index["files"].items():
        if sha256_file(_regular(place / Path(name).name)) != sha256:
            raise ValueError(f"{name} is damaged")
    known: Mapping[str, Any] = index["known"]
    return known


def _regular(path: Path) -> Path:
    """A file, which ends when it is read; a pipe may not."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    return path


def forget(folder: Path) -> None:
    """Remove what was kept, now that all is done; links are not followed."""
    if not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)

"""The original Rock-Paper-Scissors archives: download, check, extract, whole or not at all.

An archive is unpacked only after every name, file type, size, ratio and count in it has been checked, into a temporary
folder that is renamed when all checksums are right. The hash of each archive is recorded in `fetched.json`, whether or
not one was expected. Limits: no ZIP64 and no nested archives, which the originals do not need.
"""

import contextlib
import json
import os
import shutil
import stat
import tempfile
import urllib.parse
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lowbit.data.download import CHUNK_BYTES, download
from lowbit.errors import DataError, OutputError
from lowbit.files import sha256_file, write_atomically
from lowbit.progress import SILENT, Progress

BASE_URL = "https://storage.googleapis.com/download.tensorflow.org/data/"
RECORD = "fetched.json"
CLASSES = ("paper", "rock", "scissors")
END_RECORD_BYTES = 22
LONGEST_COMMENT_BYTES = 1 << 16
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Part:
    """One archive with `per_class` images in a folder for each of `CLASSES`, extracted to DIR/`split`."""

    archive: str
    split: str
    per_class: int
    sha256: str = ""


@dataclass(frozen=True)
class Limits:
    """Sizes above which an archive is refused. The originals have 200 MB and 30 MB, their images 100 KB each."""

    archive_bytes: int = 1 << 30
    member_bytes: int = 16 << 20
    total_bytes: int = 2 << 30
    members: int = 20_000
    # PNG is deflated already; small files of constant pixels may still shrink a lot.
    ratio: int = 200
    ratio_matters_bytes: int = 1 << 20


# Hashes as TensorFlow Datasets publishes them for the same addresses.
PARTS = (
    Part("rps.zip", "train", 840, "c2403444395842ad04c53612bad54b574443eae17a0723117a2ff87b9d72194f"),
    Part("rps-test-set.zip", "test", 124, "c27ab9fa43ce40b2e453de711365b477f4424586edf0388116674fd320f07503"),
)


def fetch_rps(
    folder: Path | str,
    *,
    base_url: str = BASE_URL,
    parts: tuple[Part, ...] = PARTS,
    limits: Limits | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Download the Rock-Paper-Scissors images into `folder`/train and `folder`/test, one folder per class.

    Complete splits are left alone; an archive that is in `folder` already is not downloaded.

    Args:
        folder: created if missing.
        base_url: where the archives are; https, or http on this machine.
        parts: the archives, their counts and hashes.
        limits: sizes above which an archive is refused.
        progress: told about bytes and images as they arrive.

    Returns:
        `folder`.

    Raises:
        DataError: no connection, no such file, or an archive that is damaged, unsafe or has other counts.
        OutputError: `folder` cannot be written.
    """
    folder = Path(folder)
    limits = limits or Limits()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in parts:
            if _is_complete(folder / part.split, part):
                progress.note(f"{folder / part.split} is complete.")
                continue
            _fetch_part(folder, part, base_url, limits, progress)
    except OSError as error:
        raise OutputError(
            f"cannot write: {error.strerror or error}.",
            where=str(error.filename or folder),
            remedy="Choose a folder that is writable and has room for 500 MB.",
        ) from error
    return folder


def _fetch_part(folder: Path, part: Part, base_url: str, limits: Limits, progress: Progress) -> None:
    archive = folder / part.archive
    url = urllib.parse.urljoin(base_url.rstrip("/") + "/", part.archive)
    was_there = archive.exists()
    if not was_there:
        aside = archive.with_name(archive.name + ".part")
        download(url, aside, limit=limits.archive_bytes, progress=progress)
        os.replace(aside, archive)
    try:
        digest = sha256_file(archive)
        if part.sha256 and digest != part.sha256:
            raise DataError(f"the SHA-256 is {digest}, expected {part.sha256}.", where=str(archive))
        _extract(archive, folder / part.split, part, limits, progress)
    except DataError as error:
        if was_there:
            raise DataError(error.what, where=error.where, remedy=f"Delete {archive} and run again.") from error
        # Otherwise every later run would use it again.
        archive.unlink()
        raise DataError(
            error.what, where=error.where, remedy=error.remedy or "Run again to download it again."
        ) from error
    entry: dict[str, object] = {
        "url": None if was_there else url,
        "bytes": archive.stat().st_size,
        "sha256": digest,
        "split": part.split,
        "images": part.per_class * len(CLASSES),
    }
    _record(folder / RECORD, part.archive, entry)
    if not was_there:
        archive.unlink()


def _is_complete(target: Path, part: Part) -> bool:
    if not target.exists():
        return False
    counts = {name: sum(1 for _ in _images_in(target / name)) for name in CLASSES}
    if set(counts.values()) == {part.per_class}:
        return True
    held = ", ".join(f"{name} {count}" for name, count in counts.items())
    raise DataError(
        f"the folder exists but holds {held} images, not {part.per_class} each.",
        where=str(target),
        remedy="Move it away, or choose another folder.",
    )


def _images_in(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _record(path: Path, archive: str, entry: dict[str, object]) -> None:
    entries: dict[str, object] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text())
        entries = known if isinstance(known, dict) else {}
    entries[archive] = entry
    write_atomically(path, json.dumps(entries, indent=2, sort_keys=True) + "\n")


def _extract(archive: Path, target: Path, part: Part, limits: Limits, progress: Progress) -> None:
    """Unpack into a temporary folder and rename it to `target`."""
    stage: Path | None = None
    try:
        _refuse_long_directory(archive, limits)
        with zipfile.ZipFile(archive) as opened:
            members = _checked(opened, part, limits, archive)
            stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
            for name in CLASSES:
                (stage / name).mkdir()
            for relative, info in progress.track(members.items(), f"unpacking {archive.name}", total=len(members)):
                with opened.open(info) as source, (stage / relative).open("xb") as file:
                    # Reading stops at the size that was checked, and then compares the checksum.
                    shutil.copyfileobj(source, file, CHUNK_BYTES)
                if (stage / relative).stat().st_size != info.file_size:
                    raise DataError(f"{info.filename} ends too early.", where=str(archive))
        # mkdtemp makes private folders; this one should be as readable as its parent.
        stage.chmod((target.parent.stat().st_mode | stat.S_IRWXU) & 0o777)
        os.rename(stage, target)
        stage = None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise DataError(f"the archive is damaged: {error}.", where=str(archive)) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _refuse_long_directory(archive: Path, limits: Limits) -> None:
    """Refuse too many members before zipfile creates an object for each."""
    with archive.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - END_RECORD_BYTES - LONGEST_COMMENT_BYTES))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < END_RECORD_BYTES:
        raise DataError("this is not a complete zip archive.", where=str(archive))
    directory_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
    if directory_bytes > 512 * limits.members or tail[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
        raise DataError(f"the archive has more than {limits.members} members, or is ZIP64.", where=str(archive))


def _checked(
    opened: zipfile.ZipFile, part: Part, limits: Limits, archive: Path
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The images by class/name, after everything that the archive claims has been checked."""
    infos = opened.infolist()
    if len(infos) > limits.members:
        raise DataError(f"the archive has {len(infos)} members, the maximum is {limits.members}.", where=str(archive))
    images: dict[PurePosixPath, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    total = 0
    for info in infos:
        where = f"{archive}, {info.orig_filename!r}"
        path = _safe_path(info, where)
        total += info.file_size
        if info.file_size > limits.member_bytes or total > limits.total_bytes:
            raise DataError(f"unpacks to {info.file_size} bytes, {total} so far (a bomb?).", where=where)
        if info.file_size > limits.ratio_matters_bytes and info.file_size > limits.ratio * max(info.compress_size, 1):
            raise DataError(f"{info.compress_size} bytes unpack to {info.file_size} (a bomb?).", where=where)
        if info.is_dir() or any(piece.startswith((".", "__MACOSX")) for piece in path.parts):
            continue
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        relative = PurePosixPath(path.parent.name, path.name)
        if path.parent.name not in CLASSES:
            raise DataError(f"the image is not in one of the folders {', '.join(CLASSES)}.", where=where)
        if str(relative).lower() in seen:
            raise DataError("the name occurs twice.", where=where)
        seen.add(str(relative).lower())
        images[relative] = info
    counts = Counter(path.parent.name for path in images)
    if any(counts[name] != part.per_class for name in CLASSES):
        held = ", ".join(f"{name} {counts[name]}" for name in CLASSES)
        raise DataError(f"it holds {held} images, expected {part.per_class} each.", where=str(archive))
    return images


def _safe_path(info: zipfile.ZipInfo, where: str) -> PurePosixPath:
    # zipfile cleans `filename` on reading; only the name as written shows bad intent.
    name = info.orig_filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(c in "\\:" or ord(c) < 32 for c in name) or not path.parts:
        raise DataError("the name leads out of the folder.", where=where)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
        raise DataError("this is a link or special file.", where=where)
    if info.flag_bits & 0x1:
        raise DataError("this file is encrypted.", where=where)
    return path

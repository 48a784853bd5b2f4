"""Results that belong together appear together: old ones or new ones, and other files of the user's stay.

A folder cannot be replaced by one rename in general: it may be a mount point or somebody's current folder, and it may
hold files of the user's. So one rename inside it decides. Results are made in a hidden folder there. When they are
complete on the disk, that folder is renamed to say so (`.whole`): up to here the old results stand untouched. From here
on the new ones count: the old files are removed, the one that names the others first, then the new ones are linked, the
one that names the others last, and only then the hidden folder goes. A run that is killed in between leaves a folder
without `results.json` and, beside it, everything new; the next run into the folder finishes that first.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lowbit import leftovers
from lowbit.errors import OutputError
from lowbit.files import replaceable, written

# It names the other files: where it is, they are.
INDEX = "results.json"


@contextlib.contextmanager
def staged_folder(path: Path | str, names: Sequence[str] = ()) -> Iterator[Path]:
    """A folder whose files appear in `path` only if the block succeeds; if it fails, a new `path` is removed again.

    Other files in `path` stay as they are. What killed runs left in it is finished or removed. Symbolic links are
    written through. Two runs may do this in one folder: the one that ends last has its results there, all of them.

    Args:
        path: the folder; made if missing.
        names: of files that will be written, to be refused now if that will be impossible.

    Raises:
        OutputError: `path` is a file, not writable, or the disk is full; then `kept` is a folder elsewhere with the
            files that were finished, if there are any.
    """
    if str(path) == "-":  # elsewhere a word for standard output
        raise OutputError("'-' is no folder, and results are several files.", remedy="Give the folder another name.")
    path = Path(path)
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        with contextlib.ExitStack() as stack:
            with _told(path):
                path.mkdir(parents=True, exist_ok=True)
                folder = path.resolve()
                for name in names:
                    replaceable(folder / name)
                with leftovers.held(folder):
                    _clean(folder)
                    stage = stack.enter_context(leftovers.made_stage(folder))
            stack.callback(leftovers.remove, stage)
            try:
                with _told(path):
                    yield stage
                    _complete_and_publish(stage, folder)
            except OutputError as error:
                if _files(stage):
                    keep(error, _files(stage))
                raise
    finally:
        for folder in new:
            with contextlib.suppress(OSError):  # not empty: the run succeeded, or something else uses it
                folder.rmdir()


def keep(error: OutputError, files: Iterable[Path] = ()) -> Path | None:
    """A folder elsewhere, which the error then names, with as many of some files as there is space for.

    Returns:
        The folder; None where nothing can be written either.
    """
    place = error.kept
    if place is None:
        try:
            place = error.kept = Path(tempfile.mkdtemp(prefix="lowbit-results-"))
        except OSError:
            return None
        error.remedy += f" What was finished is in {place}."
    for file in files:
        try:
            shutil.copyfile(file, place / file.name)
        except OSError:
            (place / file.name).unlink(missing_ok=True)
    return place


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system refuses, as an error that names the folder."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write: {error.strerror or error}.",
            where=str(path),
            remedy="Choose an output folder that is writable and has space.",
        ) from error


def _files(folder: Path) -> list[Path]:
    """The results in a stage, the one that names the others last."""
    files = [file for file in folder.iterdir() if file.name != leftovers.OWNER and not file.is_symlink()]
    return sorted((file for file in files if file.is_file()), key=lambda file: (file.name == INDEX, file.name))


def _complete_and_publish(stage: Path, folder: Path) -> None:
    """Rename the stage when everything in it is on the disk, then put its files in their places."""
    targets = {file.name: replaceable(folder / file.name) for file in _files(stage)}
    for file in _files(stage):
        _sync(file)
    _sync(stage)
    whole = stage.with_name(stage.name + leftovers.WHOLE)
    with leftovers.held(folder):
        try:
            os.rename(stage, whole)
            _sync(folder)
            _publish(whole, folder, targets)
        except KeyboardInterrupt:  # to finish is quicker than to go back
            if whole.exists():
                _publish(whole, folder, targets)
            raise
        except OSError:
            if whole.exists():
                os.rename(whole, stage)  # whence it is kept elsewhere
            raise


def _publish(whole: Path, folder: Path, targets: Mapping[str, Path]) -> None:
    """Put results in their places. Doing it again, from any point where it was stopped, does the same."""
    files = _files(whole)
    for file in reversed(files):
        if not _same(file, targets[file.name]):
            targets[file.name].unlink(missing_ok=True)
    _sync(folder)
    for file in files:
        target = targets[file.name]
        if not _same(file, target):
            try:
                os.link(file, target)
            except OSError:  # another disk, behind a symbolic link, or a file system without links
                _copy(file, target)
        if target not in written:
            written.append(target)
    _sync(folder)
    # From here on it is none that a later run would put in place again.
    done = whole.with_name(whole.name.removesuffix(leftovers.WHOLE))
    os.rename(whole, done)
    leftovers.remove(done)


def _same(file: Path, target: Path) -> bool:
    return not target.is_symlink() and target.exists() and os.path.samefile(file, target)


def _copy(file: Path, target: Path) -> None:
    aside = target.with_name(f"{file.parent.name.removesuffix(leftovers.WHOLE)}{leftovers.PART}")
    try:
        shutil.copyfile(file, aside)
        _sync(aside)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _clean(folder: Path) -> None:
    """Finish what a killed run had completed, remove what it had not."""
    for path in list(leftovers.leftovers(folder)):
        if not path.name.endswith(leftovers.WHOLE):
            leftovers.remove(path)
            continue
        with contextlib.suppress(OSError):
            # Links are replaced, not followed: the folder may come from a stranger, who made them.
            _publish(path, folder, {file.name: folder / file.name for file in _files(path)})


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk; not all file systems do that for folders."""
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

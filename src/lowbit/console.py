"""What the commands share: opening what the user named, telling how it goes, and failing in one sentence."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lowbit.errors import LowbitError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from lowbit.data.images import Images
    from lowbit.formats.onnx.ledger import Ledger
    from lowbit.graph.model import Model
    from lowbit.progress import Progress


def fail(error: LowbitError) -> NoReturn:
    """Print an error as one sentence, or as JSON where that was asked for, and leave with its exit code."""
    if "--json" in sys.argv:
        body = {"error": type(error).__name__, "what": error.what, "where": error.where, "remedy": error.remedy}
        sys.stdout.write(json.dumps(body) + "\n")
    sys.stderr.write(f"Error: {error}\n")
    sys.exit(error.exit_code)


def required(value: str | None, option: str) -> str:
    """A value that the command cannot do without."""
    if value is None:
        from lowbit.errors import DataError

        raise DataError(f"{option} is missing.", remedy=f"Give {option} DIR, a .npz file, or builtin:test.")
    return value


def progress_bar(quiet: bool) -> "AbstractContextManager[Progress]":
    """A bar with the time left on standard error, if somebody watches."""
    from lowbit.reports.progress import bar

    return bar(sys.stderr, quiet=quiet)


def print_json(data: object) -> None:
    """Data as JSON on standard output."""
    sys.stdout.write(json.dumps(data, indent=1) + "\n")


def load_model(
    path: Path, *, size: str | None = None, mean: str | None = None, std: str | None = None, layout: str | None = None
) -> "Model":
    """A model, with the preprocessing that the options state in place of what its metadata says."""
    from lowbit.data.options import with_preprocessing
    from lowbit.formats.opening import load

    return with_preprocessing(load(path), size=size, mean=mean, std=std, layout=layout)


def load_measured(
    files: "Sequence[Path]",
    *,
    size: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    layout: str | None = None,
) -> "Model":
    """The model that says how images are prepared: the first file, or the first that takes floats if that takes bytes.

    A file that takes image bytes says only that it wants them as they are.
    """
    from lowbit.formats.opening import is_litert
    from lowbit.measurement.reference import check_reference

    check_reference(files[0])
    loaded = load_model(files[0], size=size, mean=mean, std=std, layout=layout)
    for path in files[1:]:
        if loaded.input.dtype.name != "uint8":
            break
        if not is_litert(path):
            other = load_model(path, size=size, mean=mean, std=std, layout=layout)
            loaded = other if other.input.dtype.name != "uint8" else loaded
    return loaded


def open_data(source: str, model: "Model", limit: int | None) -> "Images":
    """Images for a model, from whatever the user named."""
    from lowbit.data.images import open_images

    return open_images(source, model.preprocessing, limit=limit)


def read_file_ledger(path: Path) -> "Ledger":
    """The ledger of an ONNX file, an archive or a LiteRT file."""
    import tempfile

    from lowbit.formats.opening import file_ledger, opened

    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        return file_ledger(path, opened(path, Path(folder)))

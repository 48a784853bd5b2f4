"""Packages that only some work needs: which extra of lowbit brings each, and what is said where one is missing.

`pip install lowbit` brings what every model needs. `tests/test_packaging.py` holds this table against pyproject.toml.
"""

import importlib
from types import ModuleType

from lowbit.errors import EngineError, LowbitError

# name of the package when imported -> the extra that brings it
EXTRAS = {
    "openvino": "openvino",
    "ai_edge_litert": "litert",
    "pycocotools": "detection",
    "torch": "torch",
    "onnxscript": "torch",
    "safetensors": "torch",
    "keras": "keras",
    "matplotlib": "train",
    "distributed": "dask",
}


def missing(
    package: str, needed_by: str, *, extra: str = "", where: str = "", kind: type[LowbitError] = EngineError
) -> LowbitError:
    """The error for a package that is not installed, with the command that installs it.

    Args:
        package: name of the package when imported, a submodule of it, or that of any other package.
        needed_by: what cannot be done without it, as the subject of a sentence.
        extra: that brings all that this needs; by default the one that brings the package.
        where: the file that it is needed for, if that is what it depends on.
        kind: of the error.
    """
    name = package.partition(".")[0]
    wanted = f"'lowbit[{extra or EXTRAS[name]}]'" if name in EXTRAS else name
    return kind(
        f"{needed_by} needs the package '{name}', which is not installed.",
        where=where,
        remedy=f"Run: pip install {wanted}",
    )


def imported(module: str, needed_by: str, *, package: str = "", kind: type[LowbitError] = EngineError) -> ModuleType:
    """A module of an optional package, or one of lowbit that imports such a package.

    Args:
        module: dotted name.
        needed_by: what cannot be done without it, as the subject of a sentence.
        package: the optional one; by default that of the module.
        kind: of the errors.

    Raises:
        LowbitError: of `kind`: the package is not installed; or it is, and cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing(error.name or module, needed_by, kind=kind) from error
    except ImportError as error:
        name = package or module.partition(".")[0]
        raise kind(
            f"{needed_by} needs the package '{name}', which cannot be imported: {error}.",
            remedy=f"Install it again: {missing(name, needed_by).remedy.removeprefix('Run: ')}",
        ) from error

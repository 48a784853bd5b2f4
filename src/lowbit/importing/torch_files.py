"""PyTorch files: TorchScript (`.pt`, `.ts`) and exported programs (`.pt2`), read without running code of theirs.

Reading a pickle can run any code, so state dicts and pickled modules (`.pth`, most `.pt`) are refused. TorchScript is a
program that torch itself interprets: what torch's operators can compute, and no Python. A `.pt2` file is JSON with
tensors beside it, but torch reads more from it than that: pickles of tensors and objects, formulas of sizes, which it
hands to Python's `eval`, and names of functions, which it looks up anywhere in Python. So the archive is read here
first, and whatever `torch.export.save` does not write for tensors and operators of a network is refused.

Sources: `torch/_export/serde/serialize.py` and `torch/export/pt2_archive` of PyTorch 2.13; PyTorch's SECURITY.md.
"""

import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lowbit.errors import ModelError
from lowbit.files import ZIP_DAMAGES
from lowbit.graph.model import LARGEST_BYTES
from lowbit.importing.imported import Given, Imported, first_line, quoted
from lowbit.importing.memory_limit import bounded_by_file
from lowbit.importing.torch import import_exported_program, import_script, needed_torch

SAFE = (
    "In Python, build the module, load its weights (safetensors, or torch.load with weights_only=True), and give "
    "lowbit.load(module, example=...); or save it once with torch.export.save as .pt2."
)
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
LARGEST_JSON = 1 << 27
# Of a formula: a symbol of a size, with what is known of it; numbers; and calls of functions, which begin in capitals.
FORMULA = re.compile(
    r"(?:Symbol\('[a-z]+\d+'|(?:positive|negative|integer|nonnegative|zero|finite|real)=(?:True|False)|[A-Z][A-Za-z]{1,40}(?=\()|"
    r"[a-z]{1,3}\d{1,6}|-?\d{1,19}(?:\.\d{1,19})?|true|false|int_oo|oo|[ ,()+*/<>=-])*"
)
TENSOR_FILE = re.compile(r"(?:weight|tensor)_\d+")
OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims|higher_order|_c10d_functional)\.\w+(?:\.\w+)?|_operator\.\w+|torch\.sym_\w+"
)


def read_script(path: Path, given: Given) -> Imported:
    """A TorchScript file; pickles, which have the same endings, are refused.

    Raises:
        ModelError: it is none, or needs an example.
    """
    source = str(path)
    names = _names(path)
    if not any("/code/" in name for name in names) or not any(name.endswith("/constants.pkl") for name in names):
        raise refused_pickle(path)
    torch = needed_torch(source)
    with bounded_by_file(path):
        with quoted("torch could not load it", source, "Save it again."), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(path, map_location="cpu")
        return import_script(module, given, source)


def read_exported_program(path: Path, given: Given) -> Imported:
    """A program that `torch.export.save` wrote.

    Raises:
        ModelError: it is none, or holds more than tensors and operators.
    """
    source = str(path)
    _check_program(path)
    torch = needed_torch(source)
    with bounded_by_file(path):
        with quoted("torch could not load it", source, "Export it again with this version of torch."), _weights_only():
            program = torch.export.load(path)
        return import_exported_program(program, given, source)


def read_pickle(path: Path, given: Given) -> Imported:
    """None is read.

    Raises:
        ModelError: always.
    """
    raise refused_pickle(path)


def refused_pickle(path: Path) -> ModelError:
    """The error of a file that only unpickling would open."""
    return ModelError("is a Python pickle, and reading one can run any code.", where=str(path), remedy=SAFE)


def _names(path: Path) -> list[str]:
    """Of the entries of a zip archive; none if it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except ZIP_DAMAGES:
        return []


def _check_program(path: Path) -> None:
    """Refuse what torch would run or unpickle."""
    source = str(path)
    again = "Export it again with torch.export.save, without objects of your own among its constants."
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > LARGEST_BYTES:
                raise ModelError(f"unpacks to more than {LARGEST_BYTES} bytes.", where=source)
            texts = [entry for entry in entries if entry.filename.endswith(".json")]
            if not any("/models/" in entry.filename for entry in texts):
                raise ModelError(
                    "holds no exported program.", where=source, remedy="Give what torch.export.save wrote."
                )
            for entry in texts:
                if entry.file_size > LARGEST_JSON:
                    raise ModelError(f"its {entry.filename} has {entry.file_size} bytes.", where=source)
                for what in _unsafe(json.loads(archive.read(entry))):
                    raise ModelError(f"{what}, which lowbit does not hand to Python.", where=source, remedy=again)
    except (*ZIP_DAMAGES, RecursionError) as error:
        raise ModelError(f"cannot be read: {first_line(error)}.", where=source, remedy="Copy it again.") from error


def _unsafe(part: Any) -> Iterator[str]:  # noqa: ANN401 - whatever JSON holds
    """What in a part of the archive is neither tensor nor operator nor formula of sizes."""
    if isinstance(part, list):
        for one in part:
            yield from _unsafe(one)
    if not isinstance(part, dict):
        return
    formula, stored, target = part.get("expr_str"), part.get("path_name"), part.get("target")
    if formula is not None and not (isinstance(formula, str) and FORMULA.fullmatch(formula)):
        yield f"has the formula {str(formula)[:80]!r}"
    if stored is not None and not (isinstance(stored, str) and TENSOR_FILE.fullmatch(stored)):
        yield f"stores {str(stored)[:80]!r}"
    if part.get("use_pickle"):
        yield "stores a tensor as a pickle"
    if "inputs" in part and target is not None and not (isinstance(target, str) and OPERATOR.fullmatch(target)):
        yield f"calls {str(target)[:80]!r}"
    for one in part.values():
        yield from _unsafe(one)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch read nothing but tensors from pickles, whatever it is asked for."""
    before = os.environ.get(WEIGHTS_ONLY)
    os.environ[WEIGHTS_ONLY] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if before is None:
            del os.environ[WEIGHTS_ONLY]
        else:
            os.environ[WEIGHTS_ONLY] = before

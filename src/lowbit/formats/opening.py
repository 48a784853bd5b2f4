"""Open whatever lowbit writes: an ONNX file as it stands, an archive by unpacking it first."""

import dataclasses
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from lowbit.engines.litert_reader import read_litert
from lowbit.errors import ArchiveError, ModelError, OutputError
from lowbit.files import read_model_file
from lowbit.formats.ledger import NUMBERS, Ledger
from lowbit.formats.litert.ledger import litert_layer_weights, read_litert_ledger
from lowbit.formats.onnx import archive
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.read import layer_weights
from lowbit.formats.record import RECORD_KEY
from lowbit.graph import load as graph_load
from lowbit.graph.checks import check_functions
from lowbit.graph.model import Model
from lowbit.graph.sizes import Sizes
from lowbit.importing.imported import Given, Imported
from lowbit.importing.table import import_object, reader_of
from lowbit.packing.archive import section_bytes

if TYPE_CHECKING:
    import keras
    import torch

Array = np.ndarray[Any, np.dtype[Any]]
RULES_KEY = "lowbit.rules"  # of a file's metadata: a list of texts


def load(
    source: "str | os.PathLike[str] | bytes | onnx.ModelProto | torch.nn.Module | torch.export.ExportedProgram | "
    "keras.Model | Model",
    *,
    example: object | None = None,
    weights: "str | os.PathLike[str] | None" = None,
    input_sizes: Sizes | None = None,
) -> Model:
    """Load a network and prepare it for quantization; the original is never changed.

    Args:
        source: an ONNX file, a lowbit archive, or a file of another framework (`importing/table.py`); the bytes of
            either of the first two; an `onnx.ModelProto`, a `keras.Model`, a `torch.nn.Module`, a TorchScript module,
            an `ExportedProgram`; or a `Model`, which comes back as it is.
        example: for a torch module, one input tensor, or a tuple or dict of them, with the batch as first dimension.
        weights: a .safetensors file with the weights of a torch module.
        input_sizes: of inputs with open dimensions, by name: fixed from now on; None leaves a dimension open.

    Raises:
        ModelError: unreadable, damaged, hostile or unsupported; says which and what to do.
        ArchiveError: a damaged archive.

    >>> lowbit.load("model.onnx")
    <Model model.onnx: 13 nodes, 1,549 parameters, x -> logits>
    """
    given = Given(example, None if weights is None else Path(weights), input_sizes or {})
    if isinstance(source, bytes) and archive.is_archive(source):
        return graph_load.load(archive.unpack(source), input_sizes=input_sizes)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if is_archive(path):
            unpacked = graph_load.load(unpack_file(path), input_sizes=input_sizes)
            return dataclasses.replace(unpacked, source=str(path))
        if is_foreign(path):
            return _imported(path, given)
    elif not isinstance(source, bytes | onnx.ModelProto | Model):
        return _prepared(import_object(source, given), given, None)
    return graph_load.load(source, input_sizes=input_sizes)


def _imported(path: Path, given: Given) -> Model:
    """A file of another framework. Commands open a model more than once, and its framework may take half a minute."""
    try:
        stamp = path.stat()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}.", where=str(path), remedy="Check the path.") from error
    if given.example is not None:
        return _read_foreign(path, given)
    sizes = tuple(sorted(given.sizes.items()))
    return _last_import(str(path), (stamp.st_mtime_ns, stamp.st_size, stamp.st_ino), sizes)


@lru_cache(maxsize=1)
def _last_import(path: str, stamp: tuple[int, ...], sizes: tuple[tuple[str, tuple[int | None, ...]], ...]) -> Model:
    return _read_foreign(Path(path), Given(sizes=dict(sizes)))


def _read_foreign(path: Path, given: Given) -> Model:
    read = reader_of(path)
    assert read is not None
    return _prepared(read(path, given), given, path.parent)


def _prepared(imported: Imported, given: Given, folder: Path | None) -> Model:
    return graph_load.from_proto(
        imported.proto,
        imported.source,
        folder=folder,
        trained_parameters=imported.trained_parameters,
        sizes=given.sizes,
    )


def is_foreign(path: Path | str) -> bool:
    """Whether a file is another framework's, by its ending.

    Raises:
        ModelError: a format that lowbit does not read; says what to do.
    """
    return reader_of(Path(path)) is not None


def is_archive(path: Path | str) -> bool:
    """Whether a file begins as a lowbit archive does."""
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            return archive.is_archive(file.read(64))
    except (OSError, ValueError):
        return False


def is_litert(path: Path | str) -> bool:
    """Whether a file is one for LiteRT, by its name."""
    return Path(path).suffix == ".tflite"


def file_weights(path: Path | str) -> dict[str, Array]:
    """The float weight of every layer as the runtime sees it, by node name.

    Raises:
        ModelError: not a readable model file.
    """
    return litert_layer_weights(path) if is_litert(path) else layer_weights(path)


def check_calls(path: Path | str) -> None:
    """Refuse an ONNX file whose functions call each other too often, which a runtime would write out one by one.

    Raises:
        ModelError: it is one, or no ONNX file at all. What else may be wrong with it is left to whoever opens it.
    """
    if not is_litert(path):
        check_functions(graph_load.read_proto(Path(path), external=False), str(path))


def check_memory(path: Path | str, model: Model) -> None:
    """Refuse an ONNX file that is to run beside a model, and would fill the memory.

    Raises:
        ModelError: it is one, or no ONNX file at all.
    """
    if not is_litert(path):
        graph_load.check_file_memory(Path(path), model)


def file_rules(path: Path | str) -> tuple[str, ...]:
    """The rules by which a file was quantized, as it says itself; empty if it does not, or cannot be read."""
    rules = _said(path, RULES_KEY)
    return tuple(str(rule) for rule in rules) if isinstance(rules, list) else ()


def file_recipe(path: Path | str) -> str:
    """The recipe by which a file was quantized, as it says itself; empty if it does not, or cannot be read."""
    made = _said(path, RECORD_KEY)
    return str(made.get("recipe", "")) if isinstance(made, dict) else ""


def _said(path: Path | str, key: str) -> object:
    """What a file's metadata say under a key, read as JSON; None if they say nothing of the kind."""
    try:
        if is_litert(path):
            said = read_litert(read_model_file(path), str(path)).text(key)
        else:
            entries = onnx.load(str(path), load_external_data=False).metadata_props
            said = next((entry.value for entry in entries if entry.key == key), None)
        return json.loads(said or "null")
    except Exception:
        # Whoever opens the file for more than this knows better what is wrong with it.
        return None


def opened(path: Path | str, folder: Path) -> Path:
    """The path of what a runtime opens: `path`, or, written into `folder`, what an archive holds, or what another
    framework's file becomes; LiteRT opens its own.

    Raises:
        ArchiveError: a damaged archive.
        ModelError: another framework's file that cannot be read.
        OutputError: `folder` cannot be written.
    """
    path = Path(path)
    if is_archive(path):
        content = unpack_file(path)
    elif not is_litert(path) and is_foreign(path):
        content = load(path).to_bytes()
    else:
        return path
    target = folder / f"{len(list(folder.iterdir()))}-{path.stem}.onnx"
    try:
        target.write_bytes(content)
    except OSError as error:
        raise OutputError(f"cannot unpack: {error.strerror or error}.", where=str(folder)) from error
    return target


def file_ledger(path: Path | str, onnx_path: Path) -> Ledger:
    """The ledger of a file: of an archive the bytes of its sections, with the counts of the ONNX file in it.

    Raises:
        ModelError: not an ONNX file.
    """
    if is_litert(path):
        return read_litert_ledger(path)
    inside = read_ledger(onnx_path)
    path = Path(path)
    if not is_archive(path):
        return inside
    data = read_model_file(path)
    sections = section_bytes(data)
    spent = dict.fromkeys(inside.bytes, 0)
    spent["codes"] = sections["codes"]
    spent[NUMBERS] = sections["numbers"]
    spent["graph"] = len(data) - sections["codes"] - sections["numbers"]
    return Ledger(spent, inside.counts, len(data), inside.layers)


def pack_file(path: Path | str) -> bytes:
    """The archive of an ONNX file.

    Raises:
        ModelError: it cannot be read, or is no ONNX file, or an archive already.
    """
    if is_archive(path):
        raise ModelError("is an archive already.", where=str(path), remedy="Give the ONNX file.")
    if is_foreign(path):
        return archive.pack(load(path).to_bytes())
    data = read_model_file(path)
    graph_load.parse(data, str(path))  # which knows how to say what is wrong with it
    try:
        return archive.pack(data)
    except ModelError as error:
        raise ModelError(error.what, where=str(path), remedy=error.remedy) from error


def unpack_file(path: Path | str) -> bytes:
    """The ONNX file in an archive.

    Raises:
        ModelError: it cannot be read.
        ArchiveError: not an archive, or a damaged one.
    """
    try:
        return archive.unpack(read_model_file(path))
    except ArchiveError as error:
        raise ArchiveError(error.what, where=str(path), remedy=error.remedy) from error

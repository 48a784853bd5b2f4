"""Weights in files beside the model: read only from the model's own folder, after all sizes are checked.

ONNX stores location, offset and length of such a tensor as text. All three are untrusted: an absolute path, a `..`, a
symbolic link out of the folder, a device, or a length that does not fit the shape is refused.
"""

from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from lowbit.errors import ModelError
from lowbit.graph.checks import byte_count, tensors
from lowbit.graph.model import LARGEST_BYTES

REMEDY = "Keep the data file in the folder of the model, as its exporter wrote it, or export the model again."


def load_external_data(proto: onnx.ModelProto, folder: Path | None, source: str) -> None:
    """Load all external data of `proto` into it.

    Raises:
        ModelError: no folder (the model came from memory), a path outside it, a missing or too short file, or more
            than 2 GB in total.
    """
    external = [tensor for tensor in tensors(proto) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if not external:
        return
    # Only now: protobuf serializes a message to compute its size.
    total = proto.ByteSize() + sum(byte_count(tensor, source) for tensor in external)
    if total > LARGEST_BYTES:
        raise ModelError(
            f"claims {total} bytes of weights, the maximum is {LARGEST_BYTES}.",
            where=source,
            remedy="Use a smaller model.",
        )
    for tensor in external:
        where = f"{source}: tensor {tensor.name!r}"
        if folder is None:
            raise ModelError(
                "has its data in another file, and a model in memory has no folder to find it in.",
                where=where,
                remedy="Load the model by its path.",
            )
        tensor.raw_data = _read(tensor, folder, byte_count(tensor, source), where)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def external_files(model: Path) -> tuple[Path, ...]:
    """The files beside a model that hold its weights; none if it cannot be read, which loading it will say."""
    try:
        proto = onnx.load(str(model), load_external_data=False)
    except Exception:  # whatever protobuf finds wrong with it
        return ()
    locations = (entry.value for tensor in tensors(proto) for entry in tensor.external_data if entry.key == "location")
    return tuple(model.parent / name for name in dict.fromkeys(locations))


def _read(tensor: onnx.TensorProto, folder: Path, expected: int, where: str) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = _inside(folder, location, where)
    offset = _number(entries.get("offset", "0"), "offset", where)
    length = _number(entries.get("length", str(expected)), "length", where)
    if length != expected:
        raise ModelError(f"has {length} bytes in {location!r}, its shape needs {expected}.", where=where, remedy=REMEDY)
    try:
        size = path.stat().st_size
        if offset + length > size:
            raise ModelError(
                f"needs bytes {offset} to {offset + length} of {location!r}, which has {size}.",
                where=where,
                remedy=REMEDY,
            )
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise ModelError(f"{location!r} cannot be read: {error.strerror}.", where=where, remedy=REMEDY) from error
    if len(data) != length:
        raise ModelError(f"{location!r} ends too early.", where=where, remedy=REMEDY)
    return data


def _inside(folder: Path, location: str, where: str) -> Path:
    """The file at `location`, if that is a regular file inside `folder` after all links are resolved."""
    parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
    absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if not location or "\0" in location or absolute or ".." in parts:
        raise ModelError(
            f"its data file {location[:200]!r} is not a path inside its folder.", where=where, remedy=REMEDY
        )
    try:
        path = (folder / location).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ModelError(f"its data file {location!r} leads out of the folder.", where=where, remedy=REMEDY)
        if not path.is_file():
            raise ModelError(f"its data file {location!r} is missing.", where=where, remedy=REMEDY)
    except (OSError, RuntimeError) as error:  # a loop of links, a name too long
        raise ModelError(f"its data file {location[:200]!r} cannot be read.", where=where, remedy=REMEDY) from error
    return path


def _number(text: str, name: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ModelError(f"its {name} {text[:40]!r} is not a byte count.", where=where, remedy=REMEDY)
    return int(text)

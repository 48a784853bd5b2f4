"""Files that are nearly right: one to three fields of a good one changed, by the schema of its format.

Changes of random bytes rarely get beyond the parser. These keep the file readable and make what it says wrong: sizes,
names, kinds, numbers, pieces that are missing, doubled, or taken from elsewhere in the file.
"""

import io
import random
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    127,
    255,
    -128,
    1 << 15,
    (1 << 31) - 1,
    -(1 << 31),
    1 << 31,
    1 << 40,
    (1 << 63) - 1,
    -(1 << 63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e30, -3.4e38, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "y", "N", "\x1b]0;t\x07", "a\nb", "../../etc/passwd", "/dev/zero", "é" * 200, "int8", "1e999", "[/b]")
RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


def changes(rng: random.Random) -> int:
    """How many fields to change: mostly one, since two errors hide one another."""
    return rng.choice((1, 1, 1, 2, 3))


def onnx_mutant(model: Message, rng: random.Random) -> bytes:
    """A changed ONNX file, or message of any other kind."""
    mutant = type(model)()
    mutant.CopyFrom(model)
    for _ in range(changes(rng)):
        messages = list(_messages(mutant))
        # Nodes, not the many small messages within tensors, decide what happens: kinds get an equal share.
        kinds = sorted({type(one).__name__ for one in messages})
        kind = rng.choice(kinds)
        message = rng.choice([one for one in messages if type(one).__name__ == kind])
        _change(message, messages, rng)
    return mutant.SerializeToString()


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if field.is_repeated else (value,):
                yield from _messages(one)


def _change(message: Message, messages: list[Message], rng: random.Random) -> None:
    present = [field for field, _ in message.ListFields()]
    field = rng.choice(present if present and rng.random() < 0.85 else list(message.DESCRIPTOR.fields))
    name = field.name
    if field.message_type is not None:
        others = [one for one in messages if one.DESCRIPTOR is field.message_type]
        other = type(others[0])() if others else None
        if other is not None:
            other.CopyFrom(rng.choice(others))  # which may hold this very message
        if not field.is_repeated:
            if other is None or rng.random() < 0.3:
                message.ClearField(name)
            else:
                getattr(message, name).CopyFrom(other)
            return
        _change_list(getattr(message, name), other, rng)
        return
    value = _scalar(field, message, messages, rng)
    if not field.is_repeated:
        message.ClearField(name) if rng.random() < 0.1 else setattr(message, name, value)
        return
    values = getattr(message, name)
    if len(values) and rng.random() < 0.6:
        values[rng.randrange(len(values))] = value
    else:
        _change_list(values, value, rng)


def _change_list(values: Any, other: Any, rng: random.Random) -> None:
    """Take one away, take all away, double one, or add another."""
    how = rng.randrange(4)
    if how == 0 and len(values):
        del values[rng.randrange(len(values))]
    elif how == 1 and len(values) and rng.random() < 0.3:
        del values[:]
    elif how == 2 and len(values):
        values.append(values[rng.randrange(len(values))])
    elif other is not None:
        values.append(other)


def _scalar(field: FieldDescriptor, message: Message, messages: list[Message], rng: random.Random) -> Any:
    kind = field.cpp_type
    old = getattr(message, field.name)
    if field.is_repeated:
        old = old[rng.randrange(len(old))] if len(old) else None
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _bytes(old or b"", rng)
        # The same field elsewhere: another operator, the name of another tensor.
        elsewhere = [text for one in messages for text in _texts(one, field) if rng.random() < 0.2]
        return rng.choice(elsewhere) if elsewhere and rng.random() < 0.6 else rng.choice(TEXTS)
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return not old
    if kind == FieldDescriptor.CPPTYPE_ENUM:  # protobuf takes no others
        return rng.choice(list(field.enum_type.values_by_number))
    low, high = RANGES[kind]
    number = rng.choice((*INTEGERS, (old or 0) + 1, (old or 0) - 1, 2 * (old or 0), rng.randrange(32)))
    return min(max(number, low), high)


def _texts(message: Message, field: FieldDescriptor) -> Iterator[str]:
    if message.DESCRIPTOR is field.containing_type:
        value = getattr(message, field.name)
        yield from value if field.is_repeated else (value,)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    how = rng.randrange(6)
    if how == 0:
        return b""
    if how == 1:
        return data[: rng.randrange(len(data) + 1)]
    if how == 2:
        return data + rng.randbytes(rng.randint(1, 16))
    if how == 3:
        return np.full(max(1, len(data) // 4), rng.choice(FLOATS), "<f4").tobytes()
    return flipped(data, rng)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Some bytes replaced."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8)) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def npz_mutant(data: bytes, rng: random.Random) -> bytes:
    """An .npz with other headers, other members, or a damaged zip around them."""
    members = unzipped(data)
    for _ in range(changes(rng)):
        name = rng.choice(sorted(members))
        content = members[name]
        how = rng.randrange(5)
        if how == 0:
            members[name] = _npy_header(content, rng)
        elif how == 1:
            members[name] = flipped(content, rng)
        elif how == 2:
            members[name] = content[: rng.randrange(len(content) + 1)]
        elif how == 3:
            members[rng.choice(("y.npy", "x.npy", "labels.npy", "../x.npy", "x", "\x1b.npy"))] = members.pop(name)
        else:
            members[name] = _bytes(content, rng)
    return zipped(members, rng)


def unzipped(data: bytes) -> dict[str, bytes]:
    """The members of a zip archive by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], rng: random.Random) -> bytes:
    """A zip archive; one in five is damaged itself."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, archive.compression)  # without the time of day
    return flipped(made.getvalue(), rng) if rng.random() < 0.2 else made.getvalue()


def _npy_header(content: bytes, rng: random.Random) -> bytes:
    shapes = (
        "()",
        "(0,)",
        "(-1, 3)",
        "(4, 3, 1000000)",
        "(1 << 62,)",
        "(4, 3, 8, 8)",
        "(9223372036854775807, 2)",
        "'x'",
        "(1.5,)",
    )
    kinds = (
        "'<f4'",
        "'|O'",
        "'<U5'",
        "'<c8'",
        "'>f8'",
        "'|b1'",
        "'<m8[ns]'",
        "[('a', '<f4')]",
        "'|V0'",
        "'|S0'",
        "None",
        "'<f2'",
    )
    kind, order, shape = rng.choice(kinds), rng.choice(("False", "True", "1")), rng.choice(shapes)
    text = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}"
    size = struct.unpack("<H", content[8:10])[0] if len(content) > 10 else 0
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content[10 + size :]


def tflite_mutant(data: bytes, rng: random.Random) -> bytes:
    """A changed LiteRT file, by the classes that its schema is made into."""
    if rng.random() < 0.3:
        return flipped(data, rng)
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for _ in range(changes(rng)):
        tables = list(_tables(model))
        kind = rng.choice(sorted({type(one).__name__ for one in tables}))
        table = rng.choice([one for one in tables if type(one).__name__ == kind])
        if not vars(table):
            continue
        name = rng.choice(sorted(vars(table)))
        setattr(table, name, _other(getattr(table, name), rng))
    builder = flatbuffers.Builder(1 << 12)
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except Exception:  # what the schema itself cannot hold
        return flipped(data, rng)
    return bytes(builder.Output())


def _tables(table: Any) -> Iterator[Any]:
    yield table
    for value in vars(table).values():
        for one in value if isinstance(value, list) else (value,):
            if type(one).__name__.endswith("T") and hasattr(one, "__dict__"):
                yield from _tables(one)


def _other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((0, 1, -1, 2, 127, value + 1, value - 1, rng.randrange(32), (1 << 31) - 1))
    if isinstance(value, float):
        return rng.choice(FLOATS)
    if isinstance(value, bytes):
        return rng.choice((b"", b"\x1b[2J", b"\xff\xfe", b"x" * 300))
    if isinstance(value, np.ndarray) and value.size:
        changed = value.copy()
        numbers = FLOATS if changed.dtype.kind == "f" else (0, 1, 127, changed.flat[0])
        changed.flat[rng.randrange(changed.size)] = rng.choice(numbers)
        return rng.choice((changed, changed[: rng.randrange(changed.size + 1)], None))
    if isinstance(value, list) and value:
        changed = list(value)
        _change_list(changed, rng.choice(changed), rng)
        return changed
    return None

"""Pictures that are nearly right: PNG chunks, JPEG segments, WebP chunks, BMP headers changed, with right checksums."""

import random
import struct
import zlib

from fuzz.mutants import changes, flipped

SIZES = (0, 1, 2, 3, 7, 8, 255, 256, 4096, 16384, 65535, 1 << 20, (1 << 31) - 1, (1 << 32) - 1)
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_EXTRAS = (
    (b"zTXt", b"comment\0\0" + zlib.compress(bytes(1 << 20))),
    (b"iCCP", b"profile\0\0" + zlib.compress(bytes(1 << 16))),
    (b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0"),
    (b"tRNS", b"\0" * 7),
    (b"PLTE", b"\1\2\3" * 300),
    (b"acTL", b"\xff\xff\xff\xff\0\0\0\0"),
    (b"fcTL", b"\0" * 26),
    (b"IDAT", b""),
    (b"IDAT", zlib.compress(bytes(1 << 22))),
    (b"IEND", b""),
)


def picture_mutant(data: bytes, rng: random.Random) -> bytes:
    """A changed PNG, JPEG, WebP or BMP file; a quarter of them changed byte by byte, or cut."""
    if rng.random() < 0.25:
        return flipped(data, rng) if rng.random() < 0.7 else data[: rng.randrange(len(data))]
    if data.startswith(PNG_START):
        return _png(data, rng)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data, rng)
    if data.startswith(b"RIFF"):
        return _webp(data, rng)
    return _numbers(data, rng, end=54)


def _png(data: bytes, rng: random.Random) -> bytes:
    chunks: list[tuple[bytes, bytes]] = []
    at = len(PNG_START)
    while at + 12 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(changes(rng)):
        _change_pieces(chunks, rng, PNG_EXTRAS, big_endian=True)
    return PNG_START + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _webp(data: bytes, rng: random.Random) -> bytes:
    chunks: list[tuple[bytes, bytes]] = []
    at = 12
    while at + 8 <= len(data):
        size = struct.unpack("<I", data[at + 4 : at + 8])[0]
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    extras = ((b"VP8X", b"\x3e\0\0\0" + b"\xff" * 6), (b"EXIF", b"Exif\0\0"), (b"ANIM", bytes(6)), (b"ALPH", b"\1"))
    for _ in range(changes(rng)):
        _change_pieces(chunks, rng, extras, big_endian=False)
    body = b"".join(name + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for name, part in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _jpeg(data: bytes, rng: random.Random) -> bytes:
    segments: list[tuple[bytes, bytes]] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = struct.unpack(">H", data[at + 2 : at + 4])[0]
        segments.append((data[at : at + 2], data[at + 4 : at + 2 + size]))
        at += 2 + size
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\xff\xff\xff\xff\0\6\0\0"
    extras = ((b"\xff\xe1", exif), (b"\xff\xe2", b"ICC_PROFILE\0\1\1"), (b"\xff\xee", b"Adobe\0d\0\0\0\0\2"))
    for _ in range(changes(rng)):
        _change_pieces(segments, rng, extras, big_endian=True)
    head = b"".join(name + struct.pack(">H", min(len(body) + 2, 65535)) + body for name, body in segments)
    return b"\xff\xd8" + head + data[at:]


def _change_pieces(
    pieces: list[tuple[bytes, bytes]], rng: random.Random, extras: tuple[tuple[bytes, bytes], ...], *, big_endian: bool
) -> None:
    """Take one away, double one, put one elsewhere, add another, or change the numbers in one."""
    how, at = rng.randrange(6), rng.randrange(len(pieces)) if pieces else 0
    if not pieces or how == 0:
        pieces.insert(at, rng.choice(extras))
    elif how == 1:
        del pieces[at]
    elif how == 2:
        pieces.insert(rng.randrange(len(pieces) + 1), pieces[at])
    else:
        name, body = pieces[at]
        pieces[at] = (name, _numbers(body, rng, end=min(len(body), 32), big_endian=big_endian))


def _numbers(data: bytes, rng: random.Random, *, end: int, big_endian: bool = False) -> bytes:
    """One integer in a header replaced: a size, a depth, a kind, an offset."""
    width = rng.choice((1, 1, 2, 4))
    if end < width:
        return data
    at = rng.randrange(end - width + 1)
    number = rng.choice(SIZES) & ((1 << 8 * width) - 1)
    return data[:at] + number.to_bytes(width, "big" if big_endian else "little") + data[at + width :]

"""Sections <-> one file with checksums: the outer shell of an archive. docs/format.md is the specification.

A reader allocates nothing before the fixed header has been checked against the file's real length and its own checksum,
and nothing is handed out unless the SHA-256 of the content fits. Standard library only.
"""

import lzma
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from lowbit.errors import ArchiveError

MAGIC = b"\x89LBT\r\n\x1a\n"
VERSION = 1
SECTIONS = (b"PLAN", b"SKEL", b"CODE", b"NUMC", b"NUMS")
EXPANSION = 256  # an archive never stands for more than this many times its own bytes
_FIXED = struct.Struct("<8sHHIQQ32s")  # magic, version, flags, header checksum, archive bytes, content bytes, SHA-256
_ENTRY = struct.Struct("<4sIQQI")  # name, method, stored bytes, raw bytes, checksum of the stored bytes
HEADER_BYTES = _FIXED.size + len(SECTIONS) * _ENTRY.size
STORED, LZMA = METHODS = (0, 1)
# Part of version 1 of the format: a reader has no other parameters to go by.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 22, "lc": 3, "lp": 0, "pb": 0, "preset": 6}]
_DAMAGED = "Get the file again from its source, or pack the model again."


@dataclass(frozen=True)
class Container:
    """What a checked archive holds.

    Attributes:
        sections: stored data by name, still compressed where its method says so.
        methods: how each section is compressed.
        raw_bytes: bytes of each section once expanded.
        content_bytes: bytes of the file that the archive stands for.
        content_sha256: its SHA-256.
    """

    sections: Mapping[bytes, memoryview]
    methods: Mapping[bytes, int]
    raw_bytes: Mapping[bytes, int]
    content_bytes: int
    content_sha256: bytes

    def section(self, name: bytes) -> bytes:
        """A section, expanded.

        Raises:
            ArchiveError: it does not expand to the size it claims.
        """
        return expand(self.sections[name], self.methods[name], self.raw_bytes[name], f"section {name.decode()}")


def is_archive(data: bytes | bytearray | memoryview) -> bool:
    """Whether data begins as a lowbit archive does; says nothing about whether it is whole."""
    return bytes(data[: len(MAGIC)]) == MAGIC


def write_container(sections: Sequence[tuple[int, bytes, int]], content: bytes) -> bytes:
    """An archive file from (method, stored data, raw bytes) of each of `SECTIONS`, in their order."""
    total = HEADER_BYTES + sum(len(data) for _, data, _ in sections)
    table = b"".join(
        _ENTRY.pack(name, method, len(data), raw, zlib.crc32(data))
        for name, (method, data, raw) in zip(SECTIONS, sections, strict=True)
    )
    fields = (total, len(content), sha256(content).digest())
    checksum = zlib.crc32(_FIXED.pack(MAGIC, VERSION, 0, 0, *fields) + table)
    header = _FIXED.pack(MAGIC, VERSION, 0, checksum, *fields) + table
    return b"".join((header, *(data for _, data, _ in sections)))


def read_container(data: bytes) -> Container:
    """Check header, lengths and checksums of an archive; nothing is expanded yet.

    Raises:
        ArchiveError: not an archive, from a newer version, truncated, damaged, or claiming impossible sizes.
    """
    if not is_archive(data):
        raise ArchiveError("not a lowbit archive.", where="archive header", remedy="`lowbit pack` writes them.")
    if len(data) < HEADER_BYTES:
        raise ArchiveError(
            f"truncated: {len(data)} bytes, the header alone has {HEADER_BYTES}.",
            where="archive header",
            remedy=_DAMAGED,
        )
    _, version, flags, checksum, total, content_bytes, digest = _FIXED.unpack_from(data)
    if version != VERSION:
        raise ArchiveError(
            f"format version {version}, this lowbit reads version {VERSION}.",
            where="archive header",
            remedy="Install a newer lowbit; if the file should be an old one, it is damaged.",
        )
    blank = _FIXED.pack(MAGIC, version, flags, 0, total, content_bytes, digest)
    if zlib.crc32(blank + data[_FIXED.size : HEADER_BYTES]) != checksum:
        raise ArchiveError("the checksum does not match.", where="archive header", remedy=_DAMAGED)
    if total != len(data):
        raise ArchiveError(
            f"{len(data)} bytes long, {total} expected: truncated, or with something behind its end.",
            where="archive",
            remedy=_DAMAGED,
        )
    if flags:
        raise ArchiveError(f"unknown flags {flags:#x}.", where="archive header", remedy="Install a newer lowbit.")
    if content_bytes > EXPANSION * total:
        raise ArchiveError(
            f"claims to stand for {content_bytes} bytes, over {EXPANSION} times its own {total}.",
            where="archive header",
            remedy="No lowbit writes such a file; do not trust its source.",
        )
    return _sections(data, content_bytes, digest)


def compress(data: bytes) -> tuple[int, bytes, int]:
    """Data in the smaller of the two methods, as (method, stored data, raw bytes)."""
    # An encoder takes a dozen times the dictionary, and never needs one longer than the data.
    dictionary = min(_FILTERS[0]["dict_size"], 1 << max(12, (len(data) - 1).bit_length()))
    packed = lzma.compress(data, lzma.FORMAT_RAW, filters=[_FILTERS[0] | {"dict_size": dictionary}])
    return (LZMA, packed, len(data)) if len(packed) < len(data) else (STORED, data, len(data))


def expand(data: bytes | memoryview, method: int, raw_bytes: int, where: str) -> bytes:
    """Undo `compress`, without ever holding more than `raw_bytes` and one byte.

    Raises:
        ArchiveError: an unknown method, damaged data, or another size than `raw_bytes`.
    """
    if method == STORED:
        raw = bytes(data)
    elif method == LZMA:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        try:
            raw = decompressor.decompress(data, max_length=raw_bytes + 1)
        except lzma.LZMAError as error:
            raise ArchiveError("damaged compressed data.", where=where, remedy=_DAMAGED) from error
        if not decompressor.eof and len(raw) <= raw_bytes:
            # The end marker may still be unread when the output was cut at its last byte.
            raise ArchiveError("compressed data ends too early.", where=where, remedy=_DAMAGED)
        if decompressor.unused_data:
            raise ArchiveError("something follows the compressed data.", where=where, remedy=_DAMAGED)
    else:
        raise ArchiveError(
            f"unknown compression method {method}.", where=where, remedy="Install a newer lowbit, or pack again."
        )
    if len(raw) != raw_bytes:
        raise ArchiveError(f"does not expand to the {raw_bytes} bytes it claims.", where=where, remedy=_DAMAGED)
    return raw


def _sections(data: bytes, content_bytes: int, digest: bytes) -> Container:
    stored: dict[bytes, memoryview] = {}
    methods: dict[bytes, int] = {}
    raw_bytes: dict[bytes, int] = {}
    view = memoryview(data)
    start = HEADER_BYTES
    for index, expected in enumerate(SECTIONS):
        name, method, length, raw, checksum = _ENTRY.unpack_from(data, _FIXED.size + index * _ENTRY.size)
        where = f"section {expected.decode()}"
        if name != expected:
            raise ArchiveError(f"section {name!r} was found in its place.", where=where, remedy=_DAMAGED)
        if length > len(data) - start:
            raise ArchiveError(f"{length} bytes claimed, {len(data) - start} left.", where=where, remedy=_DAMAGED)
        if raw > content_bytes + 64:
            raise ArchiveError(
                f"claims to expand to {raw} bytes, more than the content of {content_bytes}.",
                where=where,
                remedy="No lowbit writes such a file; do not trust its source.",
            )
        stored[name] = view[start : start + length]
        if zlib.crc32(stored[name]) != checksum:
            raise ArchiveError("the checksum does not match: bytes were changed.", where=where, remedy=_DAMAGED)
        methods[name], raw_bytes[name] = method, raw
        start += length
    if start != len(data):
        raise ArchiveError(f"{len(data) - start} bytes belong to no section.", where="archive", remedy=_DAMAGED)
    return Container(stored, methods, raw_bytes, content_bytes, digest)

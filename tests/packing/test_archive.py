"""Archives: every byte comes back, every malformation is refused by name, and what was written once opens forever."""

import hashlib
import json
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from fuzz import archives as fuzz
from lowbit.errors import ArchiveError
from lowbit.packing.archive import archive, expand_archive, section_bytes
from lowbit.packing.bits import pack
from lowbit.packing.container import (  # fmt: skip
    HEADER_BYTES,
    LZMA,
    SECTIONS,
    compress,
    expand,
    is_archive,
    read_container,
    write_container,
)
from lowbit.packing.contexts import Layout
from lowbit.packing.plan import Reader, Writer
from lowbit.packing.spans import Numbers, PackedCodes, Span, symbols_of

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(scope="module")
def packed() -> tuple[bytes, bytes]:
    content, codes, numbers = fuzz.content()
    return content, archive(content, codes, numbers)


def test_every_byte_comes_back(packed):
    content, data = packed
    assert is_archive(data)
    assert not is_archive(content)
    assert expand_archive(data) == content
    assert len(data) < 0.7 * len(content)
    assert archive(*fuzz.content()) == data, "the same input gives the same bytes"


def test_the_parts_sum_to_the_file(packed):
    parts = section_bytes(packed[1])
    assert sum(parts.values()) == len(packed[1])
    assert parts["header"] == 8 + 2 + 2 + 4 + 8 + 8 + 32 + 5 * 28  # as in docs/format.md
    assert all(parts.values())


@pytest.mark.parametrize("content", [b"", b"x", b"lowbit" * 30, bytes(range(256)) * 5])
def test_content_without_payloads(content):
    assert expand_archive(archive(content, [])) == content


def test_content_that_shrinks_beyond_the_limit_is_stored():
    content = bytes(4 << 20)
    data = archive(content, [PackedCodes((0,), (1,), Layout(8 << 22))])
    assert expand_archive(data) == content
    assert 256 * len(data) >= len(content)


def test_padding_that_is_not_zero_comes_back():
    layout = Layout(401)
    content = bytearray(pack(np.full(401, 1, np.uint8), 4).tobytes())
    content[-1] |= 0x50
    assert expand_archive(archive(bytes(content), [PackedCodes((0,), (4,), layout)])) == bytes(content)


def test_incompressible_codes_cost_next_to_nothing():
    content = np.random.default_rng(0).bytes(1 << 16)
    data = archive(content, [PackedCodes((0,), (4,), Layout(1 << 9, 1 << 8))])
    assert len(data) < 1.01 * len(content) + 300


def test_symbols_are_what_was_packed():
    codes = np.random.default_rng(0).integers(-128, 128, 100).astype(np.int8)
    item = PackedCodes((3,), (8,), Layout(100), signed=True)
    np.testing.assert_array_equal(symbols_of(b"abc" + codes.tobytes(), item), codes.astype(np.int16) + 128)


def test_overlapping_payloads_are_refused():
    item = PackedCodes((0,), (8,), Layout(64))
    with pytest.raises(ArchiveError, match="inside another"):
        archive(bytes(range(100)), [item, PackedCodes((32,), (8,), Layout(64))])


def resealed(data: bytes, at: int, field: bytes) -> bytes:
    """Header bytes replaced, the header's checksum made to fit."""
    header = bytearray(data[:HEADER_BYTES])
    header[at : at + len(field)] = field
    header[12:16] = bytes(4)
    header[12:16] = struct.pack("<I", zlib.crc32(bytes(header)))
    return bytes(header) + data[HEADER_BYTES:]


ENTRY = 64  # the first entry of the section table: name, method, stored bytes, raw bytes, checksum
MALFORMED = {
    "not a lowbit archive": lambda data: b"PK\x03\x04" + data[4:],
    "text mode": lambda data: data.replace(b"\r\n", b"\n", 1),
    "truncated": lambda data: data[: HEADER_BYTES - 1],
    "format version 2, this lowbit reads version 1": lambda data: data[:8] + b"\2\0" + data[10:],
    "archive header: the checksum does not match": lambda data: data[:40] + b"?" + data[41:],
    "expected: truncated, or with something behind": lambda data: data[:-1],
    "bytes long": lambda data: data + b"\0",
    "unknown flags 0x1": lambda data: resealed(data, 10, b"\1\0"),
    "claims to stand for": lambda data: resealed(data, 24, struct.pack("<Q", 1 << 60)),
    "section b'NALP' was found in its place": lambda data: resealed(data, ENTRY, b"NALP"),
    "unknown compression method 9": lambda data: resealed(data, ENTRY + 4, struct.pack("<I", 9)),
    "section PLAN: .* bytes claimed": lambda data: resealed(data, ENTRY + 8, struct.pack("<Q", 1 << 63)),
    "claims to expand to": lambda data: resealed(data, ENTRY + 16, struct.pack("<Q", 1 << 40)),
    "does not expand to the": lambda data: resealed(data, ENTRY + 16, struct.pack("<Q", 7)),
    "section PLAN: the checksum does not match": lambda data: resealed(data, ENTRY + 24, bytes(4)),
    "belong to no section": lambda data: resealed(data, ENTRY + 28 * 4 + 8, struct.pack("<QQI", 0, 0, zlib.crc32(b""))),
    "SHA-256": lambda data: resealed(data, 32, bytes(32)),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_malformed_archives_are_refused_by_name(packed, message):
    pattern = "not a lowbit archive" if message == "text mode" else message
    with pytest.raises(ArchiveError, match=pattern) as caught:
        expand_archive(MALFORMED[message](packed[1]))
    fuzz.complete(caught.value)


def planned(*values: int, content: bytes = bytes(1000), code: bytes = b"") -> bytes:
    plan = Writer()
    plan.add(*values)
    parts = [plan.data, content, code, b"", b""]
    return write_container([(0, part, len(part)) for part in parts], content)


PLANS = {
    "ends too early": (),
    "at most 31 is possible": (32,),
    "codes in 0 planes": (1, 400, 1, 1, 1, 0, 0),
    "codes in 1 planes of": (1, 4, 1, 2000, 1, 1, 0),
    "a plane of 3 bits": (1, 400, 1, 1, 1, 1, 0, 3),
    "codes of 20 bits": (1, 100, 1, 1, 1, 2, 0, 16, 0, 4, 0),
    "a payload of 10 bytes": (1, 10, 1, 1, 1, 1, 0, 8, 0),
    "a payload of 400 bytes at 900": (1, 400, 1, 1, 1, 1, 0, 8, 1800),
    "a payload of 600 bytes": (1, 600, 1, 1, 1, 2, 0, 8, 0, 8, 1199),
    "impossible coding parameters": (1, 400, 1, 1, 1, 1, 0, 8, 0, 0, 0, 1, 0, 0),
    "numbers of 3 bytes": (0, 1, 3),
    "numbers in 0 bytes": (0, 1, 4, 0),
    "section NUMS: does not expand": (0, 1, 1, 1, 100, 0, 0, 0),
    "a skeleton of 1000 bytes": (1, 400, 1, 1, 1, 1, 0, 8, 0, 0, 0, 2, 0, 0, 0),
    "data is left over": (0, 0, 0),
    "more than 63 bits": (1 << 70,),
}


@pytest.mark.parametrize("message", PLANS)
def test_impossible_plans_are_refused_by_name(message):
    with pytest.raises(ArchiveError, match=message) as caught:
        expand_archive(planned(*PLANS[message]))
    fuzz.complete(caught.value)


def test_a_code_wider_than_its_bits_is_refused():
    coded = archive(bytes(range(128)) * 4, [PackedCodes((0,), (8,), Layout(512))])
    container = read_container(coded)
    reader, values = Reader(container.section(b"PLAN")), []
    while reader.left:
        values.append(reader.next(1 << 40))
    assert values[9] == 0
    values[9] = 255  # the least code
    with pytest.raises(ArchiveError, match=r"at most|a code of"):
        expand_archive(planned(*values, code=container.section(b"CODE")))


def test_left_over_codes_are_refused(packed):
    container = read_container(packed[1])
    sections = [
        (container.methods[name], bytes(container.sections[name]), container.raw_bytes[name]) for name in SECTIONS
    ]
    sections[2] = (0, sections[2][1] + bytes(64), sections[2][2] + 64)
    with pytest.raises(ArchiveError, match="left over"):
        expand_archive(write_container(sections, packed[0]))


def test_compressed_data_never_grows_beyond_its_claim():
    method, bomb, _ = compress(bytes(50 << 20))
    assert method == LZMA
    with pytest.raises(ArchiveError, match="here: "):
        expand(bomb, LZMA, 1000, "here")
    with pytest.raises(ArchiveError, match="ends too early"):
        expand(bomb[:-3], LZMA, 50 << 20, "here")
    with pytest.raises(ArchiveError, match="something follows"):
        expand(compress(bytes(500))[1] + b"\0", LZMA, 500, "here")


def test_random_corruptions_never_crash_nor_pass():
    outcomes = fuzz.attack(200, seed=1, watch_memory=10)
    assert sum(outcome.total() for outcome in outcomes.values()) == 200
    for kind in ("flip_bits", "truncate", "extend"):
        assert not outcomes[kind]["unharmed"], kind


def test_every_single_flipped_bit_of_the_header_is_noticed(packed):
    data = packed[1]
    for bit in range(8 * HEADER_BYTES):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ArchiveError):
            expand_archive(bytes(damaged))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.lowbit")), ids=lambda path: path.name)
def test_golden_archives_open_forever(path):
    content = expand_archive(path.read_bytes())
    assert hashlib.sha256(content).hexdigest() == json.loads((GOLDEN / "sha256.json").read_text())[path.name]


def test_no_golden_archive_was_taken_away():
    named = set(json.loads((GOLDEN / "sha256.json").read_text()))
    assert named == {path.name for path in GOLDEN.glob("*.lowbit")}
    assert len(named) >= 7


@pytest.mark.parametrize("seed", range(20))
def test_any_numbers_come_back(seed):
    rng = random.Random(seed)
    content = bytearray()
    spans = []
    item = rng.choice((1, 2, 4, 8))
    for _ in range(rng.randint(1, 6)):
        content += rng.randbytes(rng.randint(0, 9))
        size = item * rng.randint(1, 400)
        spans.append(Span(len(content), size))
        content += (np.random.default_rng(seed).normal(0, 2, size) * rng.choice((0, 1, 30))).astype(np.int8).tobytes()
    assert expand_archive(archive(bytes(content), [], [Numbers(tuple(spans), item)])) == bytes(content)

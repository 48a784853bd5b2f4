"""Corrupt archives in many ways and check that a reader refuses them.

Two kinds of damage: to the file itself (flipped bits, truncation, splices, header edits), which checksums must catch;
and to its contents, with all checksums corrected, which only the reader's own limits and the SHA-256 of the content can
catch. In every case an archive gives exactly the bytes that were packed, or `ArchiveError`.
"""

import collections
import random
import tracemalloc
from collections.abc import Callable

import numpy as np

from lowbit.errors import ArchiveError
from lowbit.packing.archive import archive, expand_archive
from lowbit.packing.bits import pack
from lowbit.packing.container import EXPANSION, HEADER_BYTES, SECTIONS, compress, read_container, write_container
from lowbit.packing.contexts import Layout
from lowbit.packing.plan import Reader, Writer
from lowbit.packing.spans import Numbers, PackedCodes, Span

MEMORY_FACTOR = 64  # a reader's peak, in content bytes; codes of one bit take 16 bytes for each byte of content
MEMORY_BASE = 24 << 20  # and what LZMA's dictionary and the tables may take


def content(seed: int = 0) -> tuple[bytes, list[PackedCodes], list[Numbers]]:
    """A file with codes of every kind: a kernel, a matrix, bit planes, signed bytes, 16 bits; and numbers."""
    rng = np.random.default_rng(seed)
    data = bytearray(rng.integers(0, 8, 400, np.uint8).tobytes())
    codes = []

    def normal(layout: Layout, bits: int) -> np.ndarray:
        wide = rng.normal(0, 1 << bits, (layout.rows, layout.columns, layout.kernel)) / 6
        return np.clip(np.round(wide) + (1 << (bits - 1)), 0, (1 << bits) - 1).astype(np.uint16).reshape(-1)

    for layout, widths in (
        (Layout(16, 8, 3, 3), (4,)),
        (Layout(40, 30), (2, 1)),
        (Layout(64), (1,)),
        (Layout(300), (1,)),
    ):
        symbols, starts = normal(layout, sum(widths)), []
        for width in widths:
            starts.append(len(data))
            data += pack((symbols & ((1 << width) - 1)).astype(np.uint8), width).tobytes()
            symbols >>= width
            data += b"between"
        codes.append(PackedCodes(tuple(starts), widths, layout))
    layout = Layout(8, 1, 3, 3)
    codes.append(PackedCodes((len(data),), (8,), layout, signed=True))
    data += (normal(layout, 8) - 128).astype(np.int8).tobytes()
    codes.append(PackedCodes((len(data),), (16,), Layout(20, 20), signed=True))
    data += (normal(Layout(20, 20), 16).astype(np.int32) - 32768).astype("<i2").tobytes()
    spans = []
    for size in (50, 70):
        spans.append(Span(len(data), 4 * size))
        data += rng.normal(0, 0.1, size).astype("<f4").tobytes() + b"end"
    zeros = Span(len(data), 2000)
    data += bytes(2000)
    return bytes(data), codes, [Numbers(tuple(spans), 4), Numbers((zeros,), 8)]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def extend(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randint(1, 64))


def splice(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data)) for _ in range(2))
    at = rng.randrange(len(data))
    return data[:at] + data[start:end] + (data[at:] if rng.random() < 0.5 else data[at + end - start :])


def edit_header(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    at, size = rng.randrange(8, HEADER_BYTES - 8), rng.choice((1, 2, 4, 8))
    damaged[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
    return bytes(damaged)


def resealed_header(data: bytes, rng: random.Random, original: bytes) -> bytes:
    """Absurd sizes and methods, with a header checksum that fits."""
    container = read_container(data)
    sections = [
        (container.methods[name], bytes(container.sections[name]), container.raw_bytes[name]) for name in SECTIONS
    ]
    index = rng.randrange(len(sections))
    method, stored, raw = sections[index]
    absurd = rng.choice((0, 1, raw - 1 if raw else 1, raw + 1, len(original) + 64, 1 << 31, 1 << 62))
    sections[index] = (rng.choice((0, 1, 2, 7)), stored, raw) if rng.random() < 0.3 else (method, stored, absurd)
    # A content that is longer or shorter than the true one.
    claimed = original[: rng.randrange(len(original))] if rng.random() < 0.3 else original
    return write_container(sections, claimed)


def resealed_section(data: bytes, rng: random.Random, original: bytes) -> bytes:
    """A section damaged, its checksum fits: as an attacker would write it."""
    container = read_container(data)
    sections = []
    chosen = rng.choice(SECTIONS)
    for name in SECTIONS:
        method, stored, raw = container.methods[name], bytes(container.sections[name]), container.raw_bytes[name]
        if name == chosen and stored:
            stored = rng.choice((flip_bits, truncate, extend, splice))(stored, rng)
            raw = len(stored) if method == 0 else raw
        sections.append((method, stored, raw))
    return write_container(sections, original)


def resealed_plan(data: bytes, rng: random.Random, original: bytes) -> bytes:
    """Integers of the plan replaced, everything around them valid."""
    container = read_container(data)
    reader, values = Reader(container.section(b"PLAN")), []
    while reader.left:
        values.append(reader.next(1 << 62))
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(values))
        values[at] = rng.choice(
            (0, 1, 2, 3, 255, values[at] + 1, max(0, values[at] - 1), values[at] * 2, 1 << 20, 1 << 62, len(original))
        )
    plan = Writer()
    plan.add(*values)
    rest = [
        (container.methods[name], bytes(container.sections[name]), container.raw_bytes[name]) for name in SECTIONS[1:]
    ]
    return write_container([compress(plan.data), *rest], original)


PLAIN: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip_bits, truncate, extend, splice, edit_header)
RESEALED: tuple[Callable[[bytes, random.Random, bytes], bytes], ...] = (
    resealed_header,
    resealed_section,
    resealed_plan,
)


def complete(error: ArchiveError) -> None:
    """Check that an error says what, where and what to do."""
    assert error.what, "says nothing"
    assert error.where, f"does not say where: {error}"
    assert error.remedy, f"does not say what next: {error}"


def attack(count: int, *, seed: int = 0, watch_memory: int = 20) -> dict[str, collections.Counter[str]]:
    """Corrupt `count` times; every `watch_memory`-th time with the memory measured.

    Returns:
        Outcomes of each kind of damage.

    Raises:
        AssertionError: a wrong model came out, or too much memory was allocated. Any other exception is a crash.
    """
    original, codes, numbers = content(seed)
    data = archive(original, codes, numbers)
    rng = random.Random(seed)
    outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for index in range(count):
        kind = rng.choice((*PLAIN, *RESEALED))
        damaged = kind(data, rng, original) if kind in RESEALED else kind(data, rng)
        watched = index % watch_memory == 0
        if watched:
            tracemalloc.start()
        try:
            result = expand_archive(damaged)
        except ArchiveError as error:
            complete(error)
            outcomes[kind.__name__]["refused"] += 1
        else:
            # The damage may have changed nothing that matters; then the exact content must come out.
            assert result == original, f"{kind.__name__}, corruption {index} of seed {seed}: a wrong model came out"
            outcomes[kind.__name__]["unharmed"] += 1
        if watched:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            allowed = MEMORY_FACTOR * min(len(original), EXPANSION * len(damaged)) + MEMORY_BASE
            assert peak <= allowed, f"{kind.__name__}, corruption {index} of seed {seed}: {peak} bytes allocated"
    return outcomes

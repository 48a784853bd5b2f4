"""A model file <-> a smaller one: weight codes entropy-coded, numbers by byte planes, the rest compressed.

The content is any file of which it is known where codes and numbers lie (`PackedCodes`, `Numbers`: spans of bytes).
These are cut out and coded on their own; what remains, the skeleton, is compressed as it is. Expanding puts all back to
where it was, so the content returns byte for byte whatever wrote it, and SHA-256 says so. docs/format.md is the
specification; `packing/container.py` the shell with the checksums; `packing/contexts.py` what is expected of a code;
`packing/entropy.py` the coder; `packing/spans.py` how codes come out of the content and back into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from lowbit.errors import ArchiveError
from lowbit.packing.container import EXPANSION, HEADER_BYTES, STORED, compress, expand, read_container, write_container
from lowbit.packing.contexts import METHODS, Coding, Layout
from lowbit.packing.entropy import Decoder, Encoder, choose_coding, decode, encode, entropy_bits
from lowbit.packing.plan import MIN_SPAN_BYTES, Reader, Writer, impossible
from lowbit.packing.spans import Numbers, PackedCodes, Span, fill, gaps, put_symbols, repacks, symbols_of

Integers = np.ndarray[Any, np.dtype[Any]]

MAX_KERNEL = 1024
PLANE_WIDTHS = (1, 2, 4, 8, 16)
ITEM_BYTES = (1, 2, 4, 8)
_ENTROPY = 2  # method of a byte plane, beside STORED and LZMA of the container
_WHOLE_BITS = 10  # wider codes are split: eight high bits, the rest
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True)
class Archive:
    """An archive, and what each tensor took of it; the rest is header, plan and skeleton.

    Attributes:
        data: the file.
        code_bytes: of section CODE, for each item of codes; what was left in the skeleton has none.
        number_bytes: of sections NUMC and NUMS, for each group of numbers, likewise.
    """

    data: bytes
    code_bytes: tuple[int, ...]
    number_bytes: tuple[int, ...]


def archive(content: bytes, codes: Sequence[PackedCodes], numbers: Sequence[Numbers] = ()) -> bytes:
    """The archive of `content`; see `counted_archive`."""
    return counted_archive(content, codes, numbers).data


def counted_archive(content: bytes, codes: Sequence[PackedCodes], numbers: Sequence[Numbers] = ()) -> Archive:
    """The archive of `content`; the same input always gives the same bytes.

    Spans must be disjoint. Codes whose planes would not come back bit for bit (padding that is not zero) and spans
    below `MIN_SPAN_BYTES` are left in the skeleton. The result has been expanded again and compared.
    """
    encoder, number_encoder = Encoder(), Encoder()
    plan = Writer()
    code_bytes, number_bytes = [0] * len(codes), [0] * len(numbers)
    kept = {
        index: item
        for index, item in enumerate(codes)
        if min(span.length for span in item.spans) >= MIN_SPAN_BYTES and repacks(content, item)
    }
    plan.add(len(kept))
    for index, item in kept.items():
        before = encoder.size
        _write_codes(content, item, plan, encoder)
        code_bytes[index] = encoder.size - before
    stored: list[bytes] = []
    long = [
        Numbers(tuple(span for span in group.spans if span.length >= MIN_SPAN_BYTES), group.item) for group in numbers
    ]
    groups = {index: group for index, group in enumerate(long) if group.spans}
    plan.add(len(groups))
    for index, group in groups.items():
        before = number_encoder.size + sum(map(len, stored))
        _write_numbers(content, group, plan, number_encoder, stored)
        number_bytes[index] = number_encoder.size + sum(map(len, stored)) - before
    holes = sorted(
        (span for part in (kept, groups) for item in part.values() for span in item.spans),
        key=lambda span: span.start,
    )
    skeleton = b"".join(content[span.start : span.start + span.length] for span in gaps(holes, len(content)))
    ready = (encoder.data, number_encoder.data, b"".join(stored))
    sections = [compress(plan.data), compress(skeleton), *((STORED, data, len(data)) for data in ready)]
    result = write_container(sections, content)
    if EXPANSION * len(result) < len(content) or any(raw > len(content) + 64 for _, _, raw in sections):
        # Nothing that a reader would refuse is ever written: such content is stored as it is.
        nothing = Writer()
        nothing.add(0)
        nothing.add(0)
        empty = (STORED, b"", 0)
        result = write_container([(STORED, nothing.data, 2), (STORED, content, len(content)), *[empty] * 3], content)
        code_bytes, number_bytes = [0] * len(codes), [0] * len(numbers)
    if expand_archive(result) != content:
        raise ArchiveError(
            "does not come back byte for byte.", where="new archive", remedy="Please report this with the model."
        )
    return Archive(result, tuple(code_bytes), tuple(number_bytes))


def expand_archive(data: bytes) -> bytes:
    """The content that `archive` was given, byte for byte.

    Raises:
        ArchiveError: not an archive, newer, truncated, damaged in any way, or claiming impossible sizes.
    """
    container = read_container(data)
    plan = Reader(container.section(b"PLAN"))
    content = bytearray(container.content_bytes)
    decoder = Decoder(container.section(b"CODE"), "section CODE")
    number_decoder = Decoder(container.section(b"NUMC"), "section NUMC")
    stored = memoryview(container.section(b"NUMS"))
    holes: list[Span] = []
    entries = container.content_bytes // MIN_SPAN_BYTES
    for _ in range(plan.next(entries)):
        holes += _read_codes(content, plan, decoder)
    for _ in range(plan.next(entries)):
        spans, stored = _read_numbers(content, plan, number_decoder, stored)
        holes += spans
    if plan.left or len(stored) or not (decoder.exhausted and number_decoder.exhausted):
        raise impossible("data is left over after the last tensor")
    fill(content, container.section(b"SKEL"), sorted(holes, key=lambda span: span.start))
    result = bytes(content)
    if sha256(result).digest() != container.content_sha256:
        raise ArchiveError(
            "the model that comes out is not the one that went in (SHA-256).",
            where="archive",
            remedy="Get the file again from its source, or pack the model again.",
        )
    return result


def section_bytes(data: bytes) -> dict[str, int]:
    """Bytes of a checked archive by part: header, plan, skeleton, codes, numbers; they sum to its length.

    Raises:
        ArchiveError: not an archive, newer, truncated or damaged.
    """
    stored = {name: len(section) for name, section in read_container(data).sections.items()}
    return {
        "header": HEADER_BYTES,
        "plan": stored[b"PLAN"],
        "skeleton": stored[b"SKEL"],
        "codes": stored[b"CODE"],
        "numbers": stored[b"NUMC"] + stored[b"NUMS"],
    }


def _write_codes(content: bytes, item: PackedCodes, plan: Writer, encoder: Encoder) -> None:
    symbols = symbols_of(content, item)
    layout = item.layout if _coded_as_is(item.layout) else Layout(item.layout.count)
    plan.add(layout.rows, layout.columns, layout.kernel_height, layout.kernel_width, len(item.widths), int(item.signed))
    for span, width in zip(item.spans, item.widths, strict=True):
        plan.add(width)
        plan.add_start(span.start, span.length)
    low = _low_bits(item.bits)
    _write_symbols(symbols >> low if low else symbols, layout, plan, encoder)
    if low:
        _write_symbols(symbols & ((1 << low) - 1), Layout(layout.count), plan, encoder)


def _read_codes(content: bytearray, plan: Reader, decoder: Decoder) -> tuple[Span, ...]:
    most = 8 * len(content)
    layout = Layout(plan.next(most), plan.next(most), plan.next(most), plan.next(most))
    planes, signed = plan.next(5), bool(plan.next(1))
    if not planes or not 1 <= layout.count <= most or not _coded_as_is(layout):
        raise impossible(f"codes in {planes} planes of {layout}")
    starts, widths = [], []
    for _ in range(planes):
        widths.append(plan.next(16))
        if widths[-1] not in PLANE_WIDTHS:
            raise impossible(f"a plane of {widths[-1]} bits")
        starts.append(plan.next_start(-(-layout.count * widths[-1] // 8), len(content)))
    item = PackedCodes(tuple(starts), tuple(widths), layout, signed)
    if item.bits > 16:
        raise impossible(f"codes of {item.bits} bits")
    low = _low_bits(item.bits)
    symbols = _read_symbols(layout, item.bits - low, plan, decoder)
    if low:
        symbols = (symbols << low) | _read_symbols(Layout(layout.count), low, plan, decoder)
    put_symbols(content, item, symbols)
    return item.spans


def _write_numbers(content: bytes, group: Numbers, plan: Writer, encoder: Encoder, stored: list[bytes]) -> None:
    plan.add(group.item, len(group.spans))
    for span in group.spans:
        plan.add(span.length // group.item)
        plan.add_start(span.start, span.length)
    joined = np.frombuffer(b"".join(content[span.start : span.start + span.length] for span in group.spans), np.uint8)
    for place in range(group.item):
        plane = np.ascontiguousarray(joined[place :: group.item])
        layout = Layout(plane.size)
        coding, bits = choose_coding(plane, layout)
        method, data, _ = STORED, plane.tobytes(), 0
        # Compressing megabytes of noise takes seconds, so a sample must look promising.
        sample = plane[:_SAMPLE_BYTES]
        if 8 * len(compress(sample.tobytes())[1]) < min(1.02 * entropy_bits(sample) + 4096, 8 * sample.size):
            method, data, _ = compress(plane.tobytes())
        if bits < 8 * len(data):
            plan.add(_ENTROPY, coding.method, coding.alphabet, coding.center, coding.spread)
            encode(plane, layout, coding, encoder)
        else:
            plan.add(method, len(data))
            stored.append(data)


def _read_numbers(
    content: bytearray, plan: Reader, decoder: Decoder, stored: memoryview
) -> tuple[list[Span], memoryview]:
    item = plan.next(8)
    if item not in ITEM_BYTES:
        raise impossible(f"numbers of {item} bytes")
    spans = []
    for _ in range(plan.next(len(content) // MIN_SPAN_BYTES)):
        length = plan.next(len(content) // item) * item
        spans.append(Span(plan.next_start(length, len(content)), length))
    total = sum(span.length for span in spans)
    if not 0 < total <= len(content):
        raise impossible(f"numbers in {total} bytes")
    joined = np.zeros(total, np.uint8)
    count = total // item
    for place in range(item):
        method = plan.next(_ENTROPY)
        if method == _ENTROPY:
            coding = _read_coding(plan, 256)
            plane: Integers = decode(Layout(count), coding, decoder)
        else:
            length = plan.next(len(stored))
            plane = np.frombuffer(expand(stored[:length], method, count, "section NUMS"), np.uint8)
            stored = stored[length:]
        joined[place::item] = plane
    start = 0
    for span in spans:
        content[span.start : span.start + span.length] = joined[start : start + span.length].tobytes()
        start += span.length
    return spans, stored


def _write_symbols(symbols: Integers, layout: Layout, plan: Writer, encoder: Encoder) -> None:
    least = int(symbols.min())
    symbols = (symbols - np.uint16(least)).view(np.int16)
    coding, _ = choose_coding(symbols, layout)
    plan.add(least, coding.method, coding.alphabet, coding.center, coding.spread)
    encode(symbols, layout, coding, encoder)


def _read_symbols(layout: Layout, bits: int, plan: Reader, decoder: Decoder) -> Integers:
    least = plan.next((1 << bits) - 1)
    coding = _read_coding(plan, max(2, (1 << bits) - least))
    symbols = decode(layout, coding, decoder).view(np.uint16)
    symbols += np.uint16(least)
    if int(symbols.max()) >= 1 << bits:
        raise impossible(f"a code of {int(symbols.max())} in {bits} bits")
    return symbols


def _read_coding(plan: Reader, alphabet: int) -> Coding:
    coding = Coding(plan.next(max(METHODS)), plan.next(alphabet), plan.next(alphabet), plan.next(255))
    coding.check()
    return coding


def _coded_as_is(layout: Layout) -> bool:
    """Blocks need enough codes to be worth a call of the coder; other tensors are coded flat."""
    return layout.kernel == 1 or (layout.kernel <= MAX_KERNEL and layout.rows * layout.columns >= 8)


def _low_bits(bits: int) -> int:
    """Low bits that are coded on their own because the alphabet would be too large."""
    return bits - 8 if bits > _WHOLE_BITS else 0

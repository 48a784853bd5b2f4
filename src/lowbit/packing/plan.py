"""The archive's plan: integers from 0 on, 7 bits per byte, low bits first; a set high bit says that more follow."""

from lowbit.errors import ArchiveError

MIN_SPAN_BYTES = 32  # shorter payloads stay in the skeleton
_MOST_BYTES = 9


class Writer:
    """Appends integers; `data` is what a `Reader` takes."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self._end = 0

    def add(self, *values: int) -> None:
        """Append non-negative integers."""
        for value in values:
            while value > 127:
                self._parts.append(value & 127 | 128)
                value >>= 7
            self._parts.append(value)

    def add_start(self, start: int, length: int) -> None:
        """Append where a payload begins, counted from the end of the one before (2n, or -2n - 1 backwards)."""
        distance = start - self._end
        self.add(2 * distance if distance >= 0 else -2 * distance - 1)
        self._end = start + length

    @property
    def data(self) -> bytes:
        """All that was added."""
        return bytes(self._parts)


class Reader:
    """Takes integers one after the other, each with the most it may be."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = 0
        self._covered = 0

    def next(self, most: int) -> int:
        """The next integer.

        Raises:
            ArchiveError: it is larger than `most`, or the plan is over.
        """
        value = 0
        for place in range(_MOST_BYTES):
            if self._at >= len(self._data):
                raise impossible("it ends too early")
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 127) << (7 * place)
            if byte < 128:
                if value > most:
                    raise impossible(f"{value} where at most {most} is possible")
                return value
        raise impossible("an integer of more than 63 bits")

    def next_start(self, length: int, limit: int) -> int:
        """Where the next payload of `length` bytes begins in a content of `limit` bytes.

        Raises:
            ArchiveError: it is too short, does not lie within the content, or overlaps others.
        """
        distance = self.next(2 * limit + 1)
        start = self._end + (-(distance + 1) // 2 if distance & 1 else distance // 2)
        self._covered += length
        # Payloads are disjoint, so together they are no longer than the content; that bounds a reader's work.
        if length < MIN_SPAN_BYTES or start < 0 or start + length > limit or self._covered > limit:
            raise impossible(f"a payload of {length} bytes at {start} in a content of {limit}")
        self._end = start + length
        return start

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return len(self._data) - self._at


def impossible(what: str) -> ArchiveError:
    """The error for a plan that no encoder writes."""
    return ArchiveError(
        f"{what}: no encoder writes that.",
        where="section PLAN",
        remedy="Get the file again from its source, or pack the model again.",
    )

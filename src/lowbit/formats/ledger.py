"""Where the bytes of a model file went, and how many numbers of each sort it holds: ONNX, archive and LiteRT alike."""

from collections.abc import Mapping
from dataclasses import dataclass

# The first seven hold numbers.
KINDS = (
    *("codes", "scales", "zero_points", "code_books", "float_weights", "biases", "constants"),
    *("metadata", "graph", "padding"),
)
# An archive compresses all numbers that are no codes together.
NUMBERS = "numbers"


@dataclass(frozen=True)
class StoredLayer:
    """One layer with constant weights, as the file has it.

    Attributes:
        node: node name.
        op: operator type.
        weights: how many weights it has.
        code_bytes: bytes of its codes, or of its float weights.
        side_bytes: bytes of its scales, zero points and code books.
        initializers: names of the stored tensors that its weight is computed from.
        type: what one weight is: a float type, such as "float16"; "int4" for numbers of so many bits, or "4-bit book"
            for places in a code book; empty if it is not known.
    """

    node: str
    op: str
    weights: int
    code_bytes: int
    side_bytes: int
    initializers: tuple[str, ...]
    type: str = ""

    @property
    def bits_per_weight(self) -> float:
        """All bytes of this layer's weights, scales and code books included, in bits per weight."""
        return 8 * (self.code_bytes + self.side_bytes) / max(1, self.weights)


@dataclass(frozen=True)
class Ledger:
    """Bytes and numbers of a model file by sort.

    Attributes:
        bytes: by kind, in the order of `KINDS`; sums to `total`.
        counts: numbers stored by kind, for kinds that hold numbers; `codes` counts weights, not bytes.
        total: bytes on disk, external data included.
        layers: the layers with constant weights, in execution order.
    """

    bytes: Mapping[str, int]
    counts: Mapping[str, int]
    total: int
    layers: tuple[StoredLayer, ...]

    def __repr__(self) -> str:
        kinds = ", ".join(f"{kind} {size:,}" for kind, size in self.bytes.items() if size)
        return f"<Ledger of {self.total:,} bytes: {kinds}>"

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights themselves: codes, and weights left float."""
        return self.bytes["codes"] + self.bytes["float_weights"]

    @property
    def weight_count(self) -> int:
        """How many weights those are."""
        return self.counts["codes"] + self.counts["float_weights"]

    @property
    def bits_per_weight(self) -> float:
        """Codes, float weights, scales, zero points and code books, in bits per weight."""
        spent = self.weight_bytes + self.bytes["scales"] + self.bytes["zero_points"] + self.bytes["code_books"]
        return 8 * spent / max(1, self.weight_count)

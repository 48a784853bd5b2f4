"""Tables of what each of the 256 bytes holds: one Gather unpacks a plane of codes.

A byte of codes of w bits is looked up in a table [256, 8 / w], which may shift the codes to their place in wider ones
and subtract what makes them signed. A file has each table once, and computes it from the bytes 0..255 while it is
loaded: that takes some 100 bytes of the file, where up to 2 kB of entries would be stored. To divide every byte by the
powers of 2^w, as files of earlier versions do, takes four to six times as long: each code is divided twice.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from lowbit.formats.names import Names

TYPES = {"int8": ir.DataType.INT8, "int32": ir.DataType.INT32, "float32": ir.DataType.FLOAT}


class Fields(NamedTuple):
    """What codes of a byte become.

    Attributes:
        width: bits of a code: 1, 2 or 4.
        shift: how many bits each is shifted to the left.
        less: what is then subtracted.
        dtype: of the entries: "int8" or "int32".
    """

    width: int
    shift: int = 0
    less: int = 0
    dtype: str = "int32"


@dataclass(frozen=True)
class ByteTables:
    """The tables of one graph.

    Attributes:
        names: of the graph.
        nodes: that compute the tables, each behind those it reads.
    """

    names: Names
    nodes: list[ir.Node] = field(default_factory=list)
    _made: dict[object, ir.Value] = field(default_factory=dict)

    def table(self, fields: Fields) -> ir.Value:
        """[256, 8 / width]: the codes of each byte, the lowest bits first."""
        width, shift, less, dtype = fields
        if width not in self._made:
            divisors = np.array([1 << start for start in range(0, 8, width)], np.int32)
            self._made[width] = self._then("Mod", self._then("Div", self._bytes(), divisors), np.int32(1 << width))
        value = self._made[width]
        if fields not in self._made:
            value = self._then("Mul", value, np.int32(1 << shift)) if shift else value
            value = self._then("Sub", value, np.int32(less)) if less else value
            self._made[fields] = value if dtype == "int32" else self._cast(value, dtype)
        return self._made[fields]

    def _bytes(self) -> ir.Value:
        """int32 [256, 1]."""
        if "bytes" not in self._made:
            stored = self.names.constant(np.arange(256, dtype=np.uint8).reshape(-1, 1), "t")
            self._made["bytes"] = self._cast(stored, "int32")
        return self._made["bytes"]

    def _then(self, op: str, value: ir.Value, constant: np.ndarray | np.generic) -> ir.Value:
        return self._append(ir.node(op, [value, self.names.constant(constant)]))

    def _cast(self, value: ir.Value, dtype: str) -> ir.Value:
        return self._append(ir.node("Cast", [value], attributes={"to": int(TYPES[dtype])}))

    def _append(self, node: ir.Node) -> ir.Value:
        self.nodes.append(node)
        node.outputs[0].name = self.names.fresh("u")
        return node.outputs[0]

"""Short names that are free in a graph, and constants that are stored once."""

import hashlib
from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, np.dtype[Any]]

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Names:
    """Hands out names and constants for the nodes that a format adds to one graph.

    Every name is in the file at least twice, so they are as short as they can be.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        graphs = (graph, *graph.subgraphs())  # bodies see the names of the graph around them
        self._taken = {value.name for part in graphs for value in (*part.inputs, *part.initializers.values())}
        self._taken |= {output.name for node in graph.all_nodes() for output in node.outputs}
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def fresh(self, prefix: str) -> str:
        """A name that no value of the graph has."""
        while True:
            name = prefix + _base36(self._count)
            self._count += 1
            if name not in self._taken:
                self._taken.add(name)
                return name

    def constant(self, array: Array | np.generic, prefix: str = "k") -> ir.Value:
        """An initializer with this content; equal ones are stored once."""
        array = np.asarray(array)
        content = array.tobytes()
        digest = content if len(content) <= 64 else hashlib.sha256(content).digest()
        key = (str(array.dtype), array.shape, digest)
        if key in self._constants:
            return self._constants[key]
        name = self.fresh(prefix)
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.register_initializer(value)
        self._constants[key] = value
        return value


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, rest = divmod(number, 36)
        digits = DIGITS[rest] + digits
        if number == 0:
            return digits

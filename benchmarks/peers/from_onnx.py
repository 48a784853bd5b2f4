"""An ONNX network as a torch module, so that peers that start from torch get the very network that all others get.

Only the operators of the benchmarked networks: whatever else a file holds is refused by name. Constants that describe
shapes (axes, slices, pads) become Python numbers, so that torch.export sees plain calls.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

Attributes = dict[str, Any]


def conv(x: list[Any], given: Attributes) -> torch.Tensor:
    pads = given.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:]:
        raise ValueError(f"a Conv pads by {pads}: torch pads both sides alike")
    return functional.conv2d(
        x[0], x[1], x[2] if len(x) > 2 else None, stride=given.get("strides", 1), padding=pads[:2],
        dilation=given.get("dilations", 1), groups=given.get("group", 1),
    )  # fmt: skip


def reshape(x: list[Any], given: Attributes) -> torch.Tensor:
    # The one reshape of a classifier: everything but the batch in a row.
    if len(x[1]) != 2:
        raise ValueError(f"a Reshape to {x[1]}")
    return torch.flatten(x[0], 1)


def slice_(x: list[Any], given: Attributes) -> torch.Tensor:
    places = [slice(None)] * x[0].dim()
    for start, end, axis, step in zip(*x[1:5], strict=True):
        places[axis] = slice(start, min(end, 2**31), step)
    return x[0][tuple(places)]


def pad(x: list[Any], given: Attributes) -> torch.Tensor:
    before, after = x[1][: x[0].dim()], x[1][x[0].dim() :]
    return functional.pad(x[0], [size for pair in zip(before[::-1], after[::-1], strict=True) for size in pair])


def gemm(x: list[Any], given: Attributes) -> torch.Tensor:
    return functional.linear(x[0], x[1] if given.get("transB") else x[1].T, x[2])


def clip(x: list[Any], given: Attributes) -> torch.Tensor:
    low, high = x[1:]
    return functional.relu6(x[0]) if (low, high) == (0, 6) else torch.clamp(x[0], low, high)


OPERATORS: dict[str, Callable[[list[Any], Attributes], torch.Tensor]] = {
    "Conv": conv,
    "Relu": lambda x, given: functional.relu(x[0]),
    "Clip": clip,
    "Add": lambda x, given: x[0] + x[1],
    "ReduceMean": lambda x, given: x[0].mean(dim=x[1], keepdim=bool(given.get("keepdims", 1))),
    "Reshape": reshape,
    "Slice": slice_,
    "Pad": pad,
    "Gemm": gemm,
}
WEIGHTED = ("Conv", "Gemm")


class Network(torch.nn.Module):
    """The graph of an ONNX file, run node by node."""

    def __init__(self, path: str) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.input, self.output = graph.input[0].name, graph.output[0].name
        self.image = tuple(size.dim_value for size in graph.input[0].type.tensor_type.shape.dim[1:])
        self.steps = []
        self.weights = torch.nn.ParameterDict()
        for node in graph.node:
            if node.op_type not in OPERATORS:
                raise ValueError(f"{node.op_type} {node.name!r}: no torch form of it is known here")
            inputs: list[Any] = []
            for name in node.input:
                if name in constants and node.op_type in WEIGHTED:
                    key = name.replace(".", "_")
                    self.weights[key] = torch.nn.Parameter(torch.from_numpy(constants[name].copy()), False)
                    inputs.append(("weight", key))
                elif name in constants:
                    inputs.append(("constant", np.asarray(constants[name]).tolist()))
                else:
                    inputs.append(("value", name))
            given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            self.steps.append((node.op_type, inputs, given, node.output[0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values: dict[str, Any] = {self.input: x}
        for operator, inputs, given, output in self.steps:
            arguments = [
                values[what] if kind == "value" else self.weights[what] if kind == "weight" else what
                for kind, what in inputs
            ]
            values[output] = OPERATORS[operator](arguments, given)
        return values[self.output]

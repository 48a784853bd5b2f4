"""Tensors and operators of a .tflite file under construction, by their indices."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.formats.litert.file import FileOperator, FileTensor
from lowbit.formats.quantized_graph import ActivationCodes

Array = np.ndarray[Any, np.dtype[Any]]
Option = int | float | bool | Sequence[int]

# 8-bit codes, counted from the lowest, become int8 codes of the same values.
SHIFT = 128
# Versions of operators whose int8 form is not version 2.
INT16_VERSIONS = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7, "RESHAPE": 1, "LEAKY_RELU": 2}
INT16_VERSIONS |= {"MUL": 4, "TRANSPOSE_CONV": 4, "STRIDED_SLICE": 4, "GATHER": 4, "TRANSPOSE": 4, "SPLIT": 4, "SUB": 5}
INT16_VERSIONS |= {"RESIZE_BILINEAR": 4, "RESIZE_NEAREST_NEIGHBOR": 4, "MAXIMUM": 4, "MINIMUM": 4, "PAD": 2, "PADV2": 2}
INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1, "HARD_SWISH": 1}


class FileBuilder:
    """What is written so far; operators name tensors by their index."""

    def __init__(self) -> None:
        self.tensors: list[FileTensor] = []
        self.operators: list[FileOperator] = []
        self._constants: dict[tuple[object, ...], int] = {}

    def constant(
        self,
        array: Array,
        *,
        name: str = "",
        scale: npt.NDArray[np.float32] | None = None,
        zero_point: int = 0,
        axis: int = 0,
        dtype: str = "",
    ) -> int:
        """Index of a constant tensor; equal ones are stored once.

        Args:
            array: its values.
            name: may be empty.
            scale: of its codes.
            zero_point: of its codes.
            axis: dimension that the scales run along.
            dtype: as it is stored, if not as the array's own: "int4".
        """
        content = np.ascontiguousarray(array)
        steps = None if scale is None else scale.tobytes()
        kind = dtype or str(array.dtype)
        key = (kind, array.shape, content.tobytes(), steps, zero_point, axis)
        if key not in self._constants:
            self._constants[key] = len(self.tensors)
            self.tensors.append(FileTensor(array.shape, kind, name, content, scale, zero_point, axis))
        return self._constants[key]

    def halves(self, values: Array, *, name: str) -> int:
        """Index of a float32 tensor that is stored as float16, and decoded once, while the file is loaded."""
        stored = self.constant(values.astype(np.float16), name=name)
        result = self.tensor(values.shape)
        self.operator("DEQUANTIZE", [stored], [result], version=3)
        return result

    def integers(self, values: Sequence[int]) -> int:
        """Index of a constant int32 vector."""
        return self.constant(np.array(values, np.int32))

    def tensor(
        self,
        shape: Sequence[int],
        *,
        codes: ActivationCodes | None = None,
        name: str = "",
        batch_axis: int | None = None,
        dtype: str = "",
    ) -> int:
        """Index of a new tensor that an operator or the caller fills: float32, or int8 (int16, uint8) with codes."""
        kind = dtype or ("float32" if codes is None else f"int{codes.kind.bits}")
        scale = None if codes is None else np.array([codes.scale], np.float32)
        zero_point = 0 if codes is None else codes.zero_point - (0 if kind == "uint8" else codes.kind.levels // 2)
        self.tensors.append(
            FileTensor(tuple(shape), kind, name, scale=scale, zero_point=zero_point, batch_axis=batch_axis)
        )
        return len(self.tensors) - 1

    def operator(
        self,
        code: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        table: str | None = "",
        options: Mapping[str, Option] | None = None,
        version: int = 0,
    ) -> None:
        """Append an operator.

        Args:
            code: name in the schema's `BuiltinOperator`.
            inputs: tensor indices, -1 for one that is left out.
            outputs: tensor indices.
            table: name of its options table; made from the code if empty, None if there is none.
            options: its fields.
            version: least version; by default that of int8 or of float, by the first input.
        """
        made = "".join(part.title() for part in code.split("_")) + "Options"
        name = "" if table is None else table or made
        if not version:
            dtype = self.tensors[inputs[0]].dtype
            version = {"int8": INT8_VERSIONS.get(code, 2), "int16": INT16_VERSIONS.get(code, 3)}.get(dtype, 1)
        self.operators.append(FileOperator(code, tuple(inputs), tuple(outputs), options or {}, name, version))

    def derived(self, tensor: int, shape: Sequence[int], *, batch_axis: int | None = 0) -> int:
        """A new tensor of another shape with the type and scale of an old one.

        Args:
            tensor: the old one.
            shape: the new shape.
            batch_axis: where the batch is now, if the old one has a batch.
        """
        old = self.tensors[tensor]
        batch = batch_axis if old.batch_axis is not None else None
        self.tensors.append(replace(old, shape=tuple(shape), name="", data=None, batch_axis=batch))
        return len(self.tensors) - 1

    def reshape(self, tensor: int, shape: Sequence[int], *, batch_axis: int | None = 0, result: int = -1) -> int:
        """RESHAPE to a stored shape, of which the batch may be given as -1; the index of the result."""
        target = list(shape)
        old = self.tensors[tensor]
        if -1 in target:
            known = int(np.prod([size for size in target if size != -1]))
            batch_axis = target.index(-1)
            target[batch_axis] = int(np.prod(old.shape)) // known
        index = result if result >= 0 else self.derived(tensor, target, batch_axis=batch_axis)
        if self.tensors[index].batch_axis is not None:
            batch = self.tensors[index].batch_axis
            target = [-1 if axis == batch else size for axis, size in enumerate(target)]
        self.operator("RESHAPE", [tensor, self.integers(target)], [index], options={"newShape": target})
        return index

    def transpose(self, tensor: int, steps: Sequence[int]) -> int:
        """TRANSPOSE: axis i of the result is axis `steps[i]`; its index."""
        old = self.tensors[tensor]
        batch = None if old.batch_axis is None else list(steps).index(old.batch_axis)
        index = self.derived(tensor, [old.shape[step] for step in steps], batch_axis=batch)
        self.operator("TRANSPOSE", [tensor, self.integers(steps)], [index])
        return index

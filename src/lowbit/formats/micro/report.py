"""What a .tflite file asks of a microcontroller, in one value."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lowbit.engines.litert_reader import IDENTIFIER, LiteRtFile, StoredTensor, read_litert
from lowbit.errors import ModelError, OutputError, did_you_mean
from lowbit.files import read_model_file
from lowbit.formats.litert.ledger import read_litert_ledger
from lowbit.formats.micro.arena import CMSIS_NN, REFERENCE, Arena, arena_of
from lowbit.formats.micro.boards import BOARDS, BoardFit, board_fit
from lowbit.formats.micro.operators import MicroOperator, needed_operators
from lowbit.printable import brief

WRITE_ONE = "lowbit quantize MODEL.onnx -r int8 --calibration DIR --input int8 --output-type int8 -o MODEL.tflite"


@dataclass(frozen=True)
class Border:
    """An input or output of the network.

    Attributes:
        name: in the file.
        shape: with the batch that the file states.
        dtype: "int8", "float32" and so on.
        scale: of its codes; None for float.
        zero_point: the code of 0.0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int


@dataclass(frozen=True)
class MicroReport:
    """What a .tflite file takes on a microcontroller with TensorFlow Lite Micro.

    Attributes:
        source: name of the file.
        content: its bytes.
        flash: bytes by kind; they sum to the file.
        arena: RAM of the interpreter, estimated (see `lowbit.formats.micro.arena`).
        kernels: whose scratch the arena counts: "cmsis-nn" or "reference".
        operators: kinds of operators, with the resolver's method for each and what will not work.
        inputs: of the network.
        outputs: of the network.

    >>> path = lowbit.quantize("model.onnx", "int8", calibration="photos", effort="fast").save("model.tflite")
    >>> report = lowbit.micro_report(path)
    >>> sum(report.flash.values()) == len(report.content)
    True
    """

    source: str
    content: bytes = field(repr=False)
    flash: Mapping[str, int]
    arena: Arena
    kernels: str
    operators: tuple[MicroOperator, ...] = field(repr=False)
    inputs: tuple[Border, ...]
    outputs: tuple[Border, ...]

    def __repr__(self) -> str:
        sizes = f"{len(self.content):,} bytes of flash, {self.arena.bytes:,} of RAM"
        return f"<MicroReport of {brief(self.source)}: {sizes}>"

    @property
    def boards(self) -> tuple[BoardFit, ...]:
        """Whether it fits on each board of the table."""
        return tuple(self.on(name) for name in BOARDS)

    @property
    def problems(self) -> tuple[str, ...]:
        """What will not work on a microcontroller, a line each; empty if all is well."""
        return tuple(f"{operator.name}: {problem}" for operator in self.operators for problem in operator.problems)

    def on(self, board: str) -> BoardFit:
        """Whether it fits on one board.

        Raises:
            OutputError: no such board.
        """
        return board_fit(board, flash=len(self.content), arena=self.arena.bytes)

    def to_json(self) -> dict[str, Any]:
        """Everything but the bytes of the file, as plain data."""
        peak = asdict(self.arena.peak)
        return {
            "file": self.source,
            "flash": {**self.flash, "total": len(self.content)},
            "kernels": self.kernels,
            "arena": {**self.arena.parts, "total": self.arena.bytes, "peak": peak},
            "operators": [asdict(operator) for operator in self.operators],
            "inputs": [asdict(border) for border in self.inputs],
            "outputs": [asdict(border) for border in self.outputs],
            "problems": list(self.problems),
            "boards": [{"name": fit.name, "fits": fit.fits, **asdict(fit)} for fit in self.boards],
        }


def micro_report(path: Path | str, *, kernels: str = CMSIS_NN) -> MicroReport:
    """What a .tflite file takes on a microcontroller: operators, flash, RAM, and the boards that it fits on.

    Args:
        path: a .tflite file, of lowbit or any other converter.
        kernels: whose scratch memory is counted: "cmsis-nn" (Arm Cortex-M) or "reference".

    Raises:
        ModelError: no .tflite file, a damaged one, or one with too many activations for any microcontroller.
        DataError: a device or a pipe.
        OutputError: no such kernels.

    >>> path = lowbit.quantize("model.onnx", "linear8").save("model.tflite")
    >>> report = lowbit.micro_report(path, kernels="reference")
    >>> report.arena.bytes > 0
    True
    """
    if kernels not in (CMSIS_NN, REFERENCE):
        known = (CMSIS_NN, REFERENCE)
        raise OutputError(
            f"no kernels are called '{kernels}'.", remedy=f"{did_you_mean(kernels, known)}Choose {' or '.join(known)}."
        )
    path = Path(path)
    content = read_model_file(path)
    if content[4:8] != IDENTIFIER:
        raise ModelError("is not a .tflite file.", where=str(path), remedy=f"Write one first: `{WRITE_ONE}`.")
    file = read_litert(content, str(path))
    graph = file.graphs[0]
    return MicroReport(
        str(path),
        content,
        {kind: size for kind, size in read_litert_ledger(path).bytes.items() if size},
        arena_of(file, str(path), kernels=kernels),
        kernels,
        needed_operators(file),
        tuple(_border(file, graph.tensors[index]) for index in graph.inputs),
        tuple(_border(file, graph.tensors[index]) for index in graph.outputs),
    )


def _border(file: LiteRtFile, tensor: StoredTensor) -> Border:
    scales, zeros = file.array(tensor.scale, "<f4"), file.array(tensor.zero_point, "<i8")
    scale = float(scales[0]) if scales.size else None
    return Border(tensor.name, tensor.shape, tensor.dtype, scale, int(zeros[0]) if zeros.size else 0)

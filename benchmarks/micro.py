"""The arena that lowbit estimates, against the interpreter of TensorFlow Lite Micro, and its answers against LiteRT's.

    pip install tflite-micro                       # in an environment of its own, beside lowbit
    python benchmarks/micro.py [--data ../shared/data] [--models resnet20 rps128 ...]
    python benchmarks/micro.py --table             # the table from results/micro.csv

Each network is quantized to int8 throughout (16 calibration images, effort fast). Plan: what activations and scratch
take, by `lowbit.formats.micro.planner` and by the interpreter's record. Arena: the whole of it, by lowbit's formula for
8-byte pointers and reference kernels, which is what the wheel has, and the smallest with which the interpreter still
works, found by bisection. Board: what `lowbit export` shows, for 4-byte pointers and CMSIS-NN, which nothing here can
measure. Codes apart: the largest difference of an output code from LiteRT's reference kernels on random inputs.
"""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from machine import stamp
from rows import Results, argument_parser, cell, failed, heading, line, position
from subjects import NETWORKS, missing, open_subject

import lowbit
from lowbit.engines.litert_reader import read_litert
from lowbit.errors import LowbitError
from lowbit.formats.micro.arena import REFERENCE, arena_of

LARGEST_ARENA = 64 << 20
COLUMNS = ("file, bytes", "plan", "interpreter's", "arena", "smallest that works", "ratio", "on a board", "codes apart")


@dataclass(frozen=True)
class Row:
    """One network; see the docstring."""

    model: str
    file_bytes: int | None = None
    plan: int | None = None
    interpreter_plan: int | None = None
    arena: int | None = None
    smallest: int | None = None
    board: int | None = None
    codes_apart: int | None = None
    version: str = ""
    cpu: str = ""
    date: str = ""
    note: str = ""


RESULTS = Results("micro", Row, key=("model",), order=lambda row: position(row.model, NETWORKS))


def opened(content: bytes, size: int = LARGEST_ARENA) -> Any:
    from tflite_micro import runtime

    return runtime.Interpreter.from_bytes(content, arena_size=size)


def quietly(work: Any) -> tuple[Any, str]:
    """What a call returns (or the RuntimeError it ends with), and what it wrote on standard error."""
    with tempfile.TemporaryFile("w+") as told:
        before = os.dup(2)
        os.dup2(told.fileno(), 2)
        try:
            result = work()
        except RuntimeError as error:
            result = error
        finally:
            os.dup2(before, 2)
            os.close(before)
        told.seek(0)
        return result, told.read()


def recorded_plan(content: bytes) -> int:
    """Bytes of the plan, as the interpreter records them."""
    interpreter = opened(content)
    _, text = quietly(interpreter.print_allocations)
    found = re.search(r"Arena allocation head (\d+)", text)
    assert found is not None
    return int(found[1])


def smallest_arena(content: bytes) -> int:
    """Bytes with which it works, to 16."""
    low, high = 0, LARGEST_ARENA
    while high - low > 16:
        middle = (low + high) // 2
        result, _ = quietly(lambda size=middle: opened(content, size))
        low, high = (middle, high) if isinstance(result, RuntimeError) else (low, middle)
    return high


def codes_apart(content: bytes) -> int:
    """The largest difference of an output from LiteRT's reference kernels, over 8 random inputs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    micro = opened(content)
    full = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    full.allocate_tensors()
    (given,), results = full.get_input_details(), full.get_output_details()
    rng, most = np.random.default_rng(0), 0
    for _ in range(8):
        x = rng.integers(-128, 128, given["shape"]).astype(np.int8)
        micro.set_input(x, 0)
        full.set_tensor(given["index"], x)
        micro.invoke()
        full.invoke()
        for place, result in enumerate(results):
            apart = micro.get_output(place).astype(int) - full.get_tensor(result["index"]).astype(int)
            most = max(most, int(np.abs(apart).max()))
    return most


def measured(name: str, data: Path, folder: Path) -> Row:
    """One network, quantized and asked."""
    version = f"tflite-micro {metadata.version('tflite-micro')}"
    subject = open_subject(name, data, calibration=16, test=1)
    path = folder / f"{name}.tflite"
    try:
        quantized = lowbit.quantize(subject.model, "int8", calibration=subject.calibration, effort="fast")
        quantized.save(path, form=lowbit.FileForm(input="int8", output_type="int8"))
        content = path.read_bytes()
        estimate = arena_of(read_litert(content, name), name, kernels=REFERENCE, pointer=8)
        return Row(
            name, len(content), estimate.activations + estimate.scratch, recorded_plan(content), estimate.bytes,
            smallest_arena(content), lowbit.micro_report(path).arena.bytes, codes_apart(content), version, **stamp(),
        )  # fmt: skip
    except (LowbitError, RuntimeError) as error:
        return Row(name, version=version, note=str(error))


def markdown(rows: Sequence[Row], _: str | None = None) -> str:
    """A line for each network."""
    if not rows:
        return ""
    lines = [f"{rows[0].version}, {rows[0].cpu}, {rows[0].date}.\n", *heading(["network"], COLUMNS)]
    for row in rows:
        if row.arena is None or row.smallest is None:
            lines.append(failed([row.model], row.note, len(COLUMNS)))
            continue
        sizes = (row.file_bytes, row.plan, row.interpreter_plan, row.arena, row.smallest)
        cells = (*(cell(size, ",") for size in sizes), f"{row.arena / row.smallest:.3f}", cell(row.board, ","))
        lines.append(line((row.model, *cells, cell(row.codes_apart, ","))))
    return "\n".join([*lines, ""])


def main() -> None:
    arguments = argument_parser(__doc__, models=NETWORKS, quick=None).parse_args()
    if not arguments.table:
        with tempfile.TemporaryDirectory() as folder:
            for name in arguments.models:
                if said := missing(name, arguments.data):
                    print(said)
                    continue
                row = measured(name, arguments.data, Path(folder))
                print(row)
                RESULTS.add([row])
    RESULTS.fill_readmes(markdown)


if __name__ == "__main__":
    main()

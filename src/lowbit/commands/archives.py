"""`pack` and `unpack`: entropy-coded archives of ONNX files."""

from pathlib import Path
from typing import Annotated

import typer

from lowbit.commands.options import JsonOption, ModelArgument
from lowbit.console import print_json


def pack(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The archive to write.", metavar="FILE")],
    as_json: JsonOption = False,
) -> None:
    """Entropy-code an ONNX file into an archive that gives it back byte for byte."""
    from lowbit.files import write_atomically
    from lowbit.formats.opening import pack_file
    from lowbit.packing.archive import section_bytes

    data = pack_file(model)
    write_atomically(output, data)
    before, parts = model.stat().st_size, section_bytes(data)
    if as_json:
        print_json({"file": str(output), "file_bytes": len(data), "ratio": before / len(data), "sections": parts})
    else:
        typer.echo(f"{output}: {len(data):,} bytes, {before / len(data):.2f}x smaller than {model} ({before:,} bytes).")
        typer.echo(", ".join(f"{name} {size:,}" for name, size in parts.items()))


def unpack(
    archive: Annotated[Path, typer.Argument(help="An archive that `lowbit pack` wrote.", metavar="ARCHIVE")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.", metavar="FILE")],
    as_json: JsonOption = False,
) -> None:
    """Give back the ONNX file that was packed, byte for byte."""
    from lowbit.files import write_atomically
    from lowbit.formats.opening import unpack_file

    data = unpack_file(archive)
    write_atomically(output, data)
    if as_json:
        print_json({"file": str(output), "file_bytes": len(data)})
    else:
        typer.echo(f"{output}: {len(data):,} bytes.")

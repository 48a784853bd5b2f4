"""`pack` and `unpack`: entropy-coded archives of ONNX files."""

import re
from pathlib import Path
from typing import Annotated

import typer

from lowbit.commands.options import (
    CalibrationOption,
    ControlOption,
    DataOption,
    EffortOption,
    JsonOption,
    LayoutOption,
    LimitOption,
    MeanOption,
    ModelArgument,
    ShortNamesOption,
    StdOption,
)
from lowbit.console import load_model, open_data, print_json, progress_bar
from lowbit.errors import SchemeError


def pack(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The archive to write.", metavar="FILE")],
    calibration: CalibrationOption = None,
    size: Annotated[
        str | None, typer.Option("--size", help="Most bytes of the archive, such as 900KB, 1.5MB or 900000.")
    ] = None,
    bits_per_weight: Annotated[
        float | None, typer.Option("--bits-per-weight", help="Most bits a weight, the whole archive counted.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Most points lost on --data; without labels, percent of changed answers."),
    ] = None,
    data: DataOption = None,
    short_names: ShortNamesOption = False,
    control: ControlOption = False,
    effort: EffortOption = "balanced",
    limit: LimitOption = None,
    image_size: Annotated[str | None, typer.Option("--image-size", help="Input size, as HxW or one number.")] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Entropy-code an ONNX file into an archive that gives it back byte for byte.

    With --size, --bits-per-weight or --max-drop it is quantized to the best that fits; --limit bounds the calibration
    images.
    """
    from lowbit.formats.size_report import sizes
    from lowbit.quantization.pack import pack as run
    from lowbit.quantization.rate.goal import Goal
    from lowbit.quantization.rate.search import Packed
    from lowbit.reports.packed import packed_json, print_packed

    turned = any(goal is not None for goal in (size, bits_per_weight, max_drop))
    if not turned:
        unused = {"--calibration": calibration, "--data": data}
        for option, value in unused.items():
            if value is not None:
                raise SchemeError(
                    f"{option} does nothing without a goal.",
                    remedy="Add --size, --bits-per-weight or --max-drop, or leave it out.",
                )
        packed: Packed = run(model, short_names=short_names)
    else:
        goal = None if size is None else _bytes(size)
        with progress_bar(as_json) as progress:
            loaded = load_model(model, size=image_size, mean=mean, std=std, layout=layout)
            packed = run(
                loaded,
                Goal(
                    size=goal,
                    bits_per_weight=bits_per_weight,
                    max_drop=max_drop,
                    data=open_data(data, loaded, None) if data else None,
                ),
                calibration=open_data(calibration, loaded, limit) if calibration else None,
                short_names=short_names,
                effort=effort,
                progress=progress,
            )
    source_bytes = model.stat().st_size
    # With a goal what is given is the float file; without one the archive itself says whether it is.
    counted = sizes(packed.archive, against=model.read_bytes() if turned else None, coded=True, control=control)
    packed.save(output)
    if as_json:
        print_json(packed_json(packed, output, counted, source_bytes=source_bytes))
    else:
        print_packed(packed, output, model, counted, source_bytes=source_bytes)


def _bytes(text: str) -> int:
    """Bytes from 900KB, 1.5 MB, 900000: decimal units, as everywhere in lowbit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(b|kb|mb|gb)?", text.strip().lower())
    if match is None:
        raise SchemeError(f"--size '{text}' is no size.", remedy="Write for example 900KB, 1.5MB or 900000.")
    return round(float(match[1]) * {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9}[match[2] or "b"])


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

"""Options that several commands take, each under one name and with one meaning."""

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[Path, typer.Argument(help="An ONNX file.", metavar="MODEL")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Evaluation images: folder of class folders, .npz, or builtin:test.", metavar="DIR"),
]
CalibrationOption = Annotated[
    str | None,
    typer.Option("--calibration", help="Calibration images; labels are not used.", metavar="DIR"),
]
ControlOption = Annotated[
    bool, typer.Option("--control", help="Also say what zstd -19 and xz -9 make of the float file.")
]
ShortNamesOption = Annotated[
    bool, typer.Option("--short-names", help="Rename inner tensors; drop notes, inner shapes and names of nodes.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine", help="onnxruntime, openvino or litert; several with commas; or auto: all that are installed."
    ),
]
EmulateOption = Annotated[
    str, typer.Option("--emulate", help="x86: also give the answers of integer ONNX files on x86 without VNNI.")
]
ThreadsOption = Annotated[int, typer.Option(help="Threads of the runtime while timing.", min=1)]
BatchOption = Annotated[int, typer.Option(help="Images a run while timing.", min=1)]
RunsOption = Annotated[int, typer.Option(help="Timed runs of each file; 0 leaves latency out.", min=0)]
SizeOption = Annotated[str | None, typer.Option("--size", help="Input size, as HxW or one number.")]
MeanOption = Annotated[str | None, typer.Option("--mean", help="Mean a channel, as 0.485,0.456,0.406 or 'imagenet'.")]
StdOption = Annotated[str | None, typer.Option("--std", help="Standard deviation a channel, likewise.")]
LayoutOption = Annotated[str | None, typer.Option("--layout", help="NCHW or NHWC.")]
EffortOption = Annotated[str, typer.Option(help="How long to search for codes: fast, balanced or best.")]
StepsOption = Annotated[
    str | None,
    typer.Option(
        "--steps",
        help="What is tried between plain encoding and the file: exact-input, equalization, rounding, bias, with "
        "commas; or none. Chosen by recipe and effort if left out.",
        metavar="STEP[,STEP]|none",
    ),
]
LimitOption = Annotated[int | None, typer.Option("--limit", help="Use at most so many images.", min=1)]
PerOption = Annotated[
    str | None, typer.Option("--per", help="tensor, channel or group: what shares a scale or code book.")
]
GroupOption = Annotated[int | None, typer.Option("--group-size", help="How many, with --per group.", min=1)]
AffineOption = Annotated[bool | None, typer.Option("--affine/--symmetric", help="A zero point a scale, or none.")]
RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="Such as int8, linear4, cluster2.")]
RecipesOption = Annotated[str | None, typer.Option("--recipes", help="Comma separated; the study's seven by default.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Fail if anything asked for cannot be given.")]
FolderOption = Annotated[Path, typer.Option("--out", help="Folder for files, results and report.", metavar="DIR")]
InputOption = Annotated[
    str,
    typer.Option(
        "--input",
        help="What the file takes: float32 (normalized by the caller), uint8 (the bytes of images; the file "
        "normalizes), int8 (codes, LiteRT only).",
    ),
]
InputLayoutOption = Annotated[
    str, typer.Option("--input-layout", help="Of image bytes: NHWC, as image libraries give them, or NCHW.")
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="Processor that integers are made for: native (this machine; the default), x86-vnni, x86 or arm.",
    ),
]


def listed(text: str | None) -> list[str] | None:
    """The words of an option that takes several with commas, where `none` stands for none of them."""
    if text is None:
        return None
    return [] if text.strip() == "none" else [word.strip() for word in text.split(",") if word.strip()]

"""`pack` and `unpack`: entropy-coded archives of ONNX files."""

import re
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowbit.commands.opening import load_model, onnx_form, open_data
from lowbit.commands.options import (
    CalibrationOptions,
    ControlOption,
    EffortOption,
    JsonOption,
    ModelArgument,
    OutputOption,
    PreprocessingOptions,
    ShortNamesOption,
    TargetOption,
    refuse_idle,
)
from lowbit.console import print_json, progress_bar, say
from lowbit.errors import DowngradeError, SchemeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowbit.quantization.rate.packed import Packed


@dataclass(frozen=True)
class GoalOptions:
    """What the archive is quantized for; without a goal it is not."""

    size: Annotated[str | None, typer.Option(help="Maximum size of the archive, such as 900KB, 1.5MB or 900000.")] = (
        None
    )
    bits_per_weight: Annotated[
        float | None, typer.Option(help="Maximum bits per weight, with the whole archive counted.")
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Maximum loss of accuracy, in points, on images like those of --data; without labels, percent of "
            "predictions that change."
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(help="Evaluation images for --max-drop; never calibration images.", metavar="DIR"),
    ] = None
    activations: Annotated[
        str | None,
        typer.Option(help="What the file computes in: float (the default), or int8 (int8 weights, uint8 activations)."),
    ] = None
    target: TargetOption = None
    effort: EffortOption = "balanced"
    confidence: Annotated[
        float | None, typer.Option(help="How sure --max-drop is to hold, such as 0.95 (the default).")
    ] = None
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if the drop is not certified, instead of saying so.")
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep finished trials beside the archive until it is written, and take those that a run with this "
            "option left there when it was stopped.",
        ),
    ] = False

    @property
    def given(self) -> bool:
        """Whether there is a goal."""
        return any(goal is not None for goal in (self.size, self.bits_per_weight, self.max_drop))


def pack(
    model: ModelArgument,
    output: OutputOption,
    images: CalibrationOptions,
    goal: GoalOptions,
    preprocessing: PreprocessingOptions,
    short_names: ShortNamesOption = False,
    control: ControlOption = False,
    as_json: JsonOption = False,
) -> None:
    """Entropy-code an ONNX file into an archive that restores it byte for byte.

    With --size, --bits-per-weight or --max-drop the model is first quantized to the best that fits.
    """
    from lowbit.files import check_ending
    from lowbit.formats.size_report import sizes
    from lowbit.keeping import KEPT, called, forget
    from lowbit.quantization.pack import pack as run
    from lowbit.quantization.rate.packed import ARCHIVES
    from lowbit.reports.packed import packed_json, print_packed, unmet

    check_ending(output, ARCHIVES)
    kept = output.with_name(f"{KEPT}-{called(output.name)[:8]}") if goal.resume else None
    if goal.given:
        how = partial(run, short_names=short_names, kept=kept)
        packed = _quantized(how, model, images, goal, preprocessing, as_json)
    else:
        idle = (
            ("--calibration", images.calibration),
            ("--data", goal.data),
            ("--activations", goal.activations),
            ("--target", goal.target),
            ("--confidence", goal.confidence),
            ("--strict", goal.strict),
            ("--resume", goal.resume),
            ("--limit", images.limit),
            ("--effort", None if goal.effort == GoalOptions.effort else goal.effort),
            *((f"--{name.replace('_', '-')}", value) for name, value in asdict(preprocessing).items()),
        )
        refuse_idle(idle, "a goal", "--size, --bits-per-weight or --max-drop")
        packed = run(model, short_names=short_names)
    if goal.strict and packed.certificate is not None and not packed.certificate.holds:
        raise DowngradeError(unmet(packed), where=str(model), remedy="Or leave --strict out.")
    with onnx_form(model) as file:
        source_bytes = file.stat().st_size
        # With a goal the model given is the float file; without one the archive itself says whether it is.
        original = file.read_bytes() if goal.given else None
    counted = sizes(packed.archive, against=original, coded=True, control=control)
    packed.save(output)
    if kept is not None:
        forget(kept)
    if as_json:
        print_json(packed_json(packed, output, counted, source_bytes=source_bytes))
    else:
        print_packed(packed, output, model, counted, source_bytes=source_bytes)


def _quantized(
    pack: "Callable[..., Packed]",
    model: Path,
    images: CalibrationOptions,
    goal: GoalOptions,
    preprocessing: PreprocessingOptions,
    quiet: bool,
) -> "Packed":
    """The archive of the model that was quantized for a goal."""
    from lowbit.quantization.planning.target import NATIVE
    from lowbit.quantization.rate.goal import CONFIDENCE, Goal

    if goal.max_drop is None:
        refuse_idle((("--confidence", goal.confidence), ("--strict", goal.strict)), "a drop", "--max-drop")
    if images.calibration is None:
        refuse_idle((("--limit", images.limit),), "calibration samples", "--calibration")
        if goal.data is None:
            refuse_idle((("--feed", preprocessing.feed),), "samples", "--calibration or --data")
    size = None if goal.size is None else bytes_of(goal.size)
    with progress_bar(quiet) as progress:
        loaded = load_model(model, preprocessing)
        data, calibration = (
            open_data(source, loaded, preprocessing, limit=limit) if source else None
            for source, limit in ((goal.data, None), (images.calibration, images.limit))
        )
        return pack(
            loaded,
            Goal(
                size,
                goal.bits_per_weight,
                goal.max_drop,
                data,
                goal.activations or "float",
                goal.target or NATIVE,
                CONFIDENCE if goal.confidence is None else goal.confidence,
            ),
            calibration=calibration,
            effort=goal.effort,
            progress=progress,
        )


def bytes_of(text: str, option: str = "--size") -> int:
    """Bytes from 900KB, 1.5 MB, 900000: decimal units, as everywhere in lowbit.

    Raises:
        SchemeError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(b|kb|mb|gb)?", text.strip().lower())
    if match is None:
        raise SchemeError(f"{option} '{text}' is not a size.", remedy="Write for example 900KB, 1.5MB or 900000.")
    return round(float(match[1]) * {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9}[match[2] or "b"])


def unpack(
    archive: Annotated[Path, typer.Argument(help="An archive written by `lowbit pack`.", metavar="ARCHIVE")],
    output: OutputOption,
    as_json: JsonOption = False,
) -> None:
    """Restore the ONNX file that was packed, byte for byte."""
    from lowbit.files import check_ending, write_atomically
    from lowbit.formats.opening import unpack_file

    check_ending(output, (".onnx",))
    data = unpack_file(archive)
    write_atomically(output, data)
    if as_json:
        print_json({"file": str(output), "file_bytes": len(data)})
    else:
        say(f"{output}: {len(data):,} bytes.")

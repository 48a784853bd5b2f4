"""`quantize`: one model, one recipe, one file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowbit.commands.opening import decided, load_model, open_data, read_file_ledger
from lowbit.commands.options import (
    CalibrationOptions,
    InputLayoutOption,
    InputOption,
    JsonOption,
    ModelArgument,
    OutputOption,
    PreprocessingOptions,
    RecipeOptions,
    SearchOptions,
    ShortNamesOption,
    refuse_idle,
)
from lowbit.console import print_json, progress_bar, say

if TYPE_CHECKING:
    from lowbit.formats.file_form import FileForm
    from lowbit.graph.model import Model
    from lowbit.quantization.planning.plan import Plan


@dataclass(frozen=True)
class FormOptions:
    """How the file is written."""

    to: Annotated[
        str | None,
        typer.Option(
            help="File format: onnx, openvino (ONNX in the form that OpenVINO runs fastest) or litert; by default "
            "chosen by the name of the output."
        ),
    ] = None
    input: InputOption = "float32"
    input_layout: InputLayoutOption = "NHWC"
    output_type: Annotated[str, typer.Option(help="Output type: float32; or int8 or uint8 (codes, LiteRT only).")] = (
        "float32"
    )
    short_names: ShortNamesOption = False

    def form(self) -> "FileForm":
        """The same as the library takes it."""
        from lowbit.formats.file_form import FileForm

        return FileForm(self.to, self.input, self.input_layout.upper(), self.output_type, self.short_names)


def quantize(
    model: ModelArgument,
    recipe: RecipeOptions,
    output: OutputOption,
    images: CalibrationOptions,
    form: FormOptions,
    search: SearchOptions,
    preprocessing: PreprocessingOptions,
    as_json: JsonOption = False,
) -> None:
    """Quantize a model and write the file."""
    from lowbit.files import write_atomically
    from lowbit.quantization.quantize import quantize as run
    from lowbit.quantization.quantized import check_form
    from lowbit.quantization.trial import check_runs
    from lowbit.reports.written import print_written, written_json

    file_form = form.form()
    if images.calibration is None:
        idle = (("--limit", images.limit), ("--feed", preprocessing.feed), ("--effort", search.effort))
        refuse_idle(idle, "calibration samples", "--calibration")
    with progress_bar(as_json) as progress:
        loaded = load_model(model, preprocessing)
        decision = decided(loaded, recipe, search, with_images=images.calibration is not None)
        check_form(loaded, decision, output, file_form)
        calibration = None
        if images.calibration:
            calibration = open_data(images.calibration, loaded, preprocessing, limit=images.limit)
        verdict, faster = _verdict(loaded, decision, output)
        if not faster:
            # Before the work is done, and on standard error, where it does not disturb who reads the output.
            say(" ".join(("Note:", *loaded.remarks, verdict)), error=True)
        quantized = run(
            loaded,
            decision,
            calibration=calibration,
            steps=search.chosen_steps(),
            strict=search.strict,
            progress=progress,
        )
        named = file_form.named(output)
        content = quantized.to_bytes(named)
        check_runs(loaded, content, named)
        write_atomically(output, content)
    ledger = read_file_ledger(output)
    if as_json:
        written = written_json(quantized, output, ledger, source_bytes=model.stat().st_size)
        print_json({**written, "verdict": verdict})
    else:
        print_written(quantized, output, ledger, source_bytes=model.stat().st_size)


def _verdict(model: "Model", decision: "Plan", output: Path) -> tuple[str, bool]:
    """What integers will bring on this processor, and whether they are worth it; no verdict where that is unknown."""
    from lowbit.engines.bounds import ExcessError
    from lowbit.errors import ModelError
    from lowbit.formats.opening import is_litert
    from lowbit.measurement.forecast import forecast
    from lowbit.quantization.planning.target import NATIVE, resolved

    if not decision.has_cpu_kernels or is_litert(output) or decision.target != resolved(NATIVE):
        return "", True
    try:
        expected = forecast(model, decision)
    except ExcessError:
        raise
    except ModelError:
        # No sizes, or nothing to quantize: the work itself says what is wrong with the model.
        return "", True
    return expected.verdict, expected.faster

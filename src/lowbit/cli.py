"""The command line: parse, call one library function, print. Heavy imports wait until a command needs them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowbit.console import (
    check_format,
    fail,
    load_model,
    open_data,
    print_json,
    progress_bar,
    read_file_ledger,
    required,
)
from lowbit.errors import LowbitError

if TYPE_CHECKING:
    from lowbit.data.images import Images
    from lowbit.graph.model import Model
    from lowbit.measurement.results import Comparison

EXIT_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Post-training quantization of trained networks, measured honestly on the files it writes.",
)

ModelArgument = Annotated[Path, typer.Argument(help="An ONNX file.", metavar="MODEL")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Evaluation images: folder of class folders, .npz, or builtin:test.", metavar="DIR"),
]
CalibrationOption = Annotated[
    str | None,
    typer.Option("--calibration", help="Calibration images; labels are not used.", metavar="DIR"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
EngineOption = Annotated[str, typer.Option(help="onnxruntime, or openvino where it is installed.")]
ThreadsOption = Annotated[int, typer.Option(help="Threads of the runtime while timing.", min=1)]
BatchOption = Annotated[int, typer.Option(help="Images a run while timing.", min=1)]
RunsOption = Annotated[int, typer.Option(help="Timed runs of each file; 0 leaves latency out.", min=0)]
SizeOption = Annotated[str | None, typer.Option("--size", help="Input size, as HxW or one number.")]
MeanOption = Annotated[str | None, typer.Option("--mean", help="Mean a channel, as 0.485,0.456,0.406 or 'imagenet'.")]
StdOption = Annotated[str | None, typer.Option("--std", help="Standard deviation a channel, likewise.")]
LayoutOption = Annotated[str | None, typer.Option("--layout", help="NCHW or NHWC.")]
EffortOption = Annotated[str, typer.Option(help="How long to search for codes: fast, balanced or best.")]
LimitOption = Annotated[int | None, typer.Option("--limit", help="Use at most so many images.", min=1)]


@app.command()
def inspect(
    model: ModelArgument,
    as_json: JsonOption = False,
) -> None:
    """Per layer and in total: shapes, parameters, MACs, FLOPs, bytes and ranges of the weights."""
    from lowbit.formats.opening import load
    from lowbit.graph.cost import cost
    from lowbit.reports.inspection import inspection_json, print_inspection

    loaded = load(model)
    counted = cost(loaded)
    ledger = read_file_ledger(model)
    if as_json:
        print_json(inspection_json(loaded, counted, ledger))
    else:
        print_inspection(loaded, counted, ledger)


@app.command()
def plan(
    model: ModelArgument,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Such as int8, linear4, cluster2.")],
    per: Annotated[str | None, typer.Option(help="tensor, channel or group: what shares a scale or code book.")] = None,
    group_size: Annotated[int | None, typer.Option(help="How many, with --per group.", min=1)] = None,
    affine: Annotated[
        bool | None, typer.Option("--affine/--symmetric", help="A zero point for each scale, or none.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if anything asked for cannot be given.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What a recipe will do to each tensor and node, and why, before anything is touched."""
    from lowbit.formats.opening import load
    from lowbit.quantization.plan import plan as make_plan
    from lowbit.quantization.recipes import parse_recipe
    from lowbit.reports.inspection import print_plan

    wanted = parse_recipe(recipe, per=per, group_size=group_size, symmetric=None if affine is None else not affine)
    decision = make_plan(load(model), wanted)
    if as_json:
        print_json(decision.to_json())
    else:
        print_plan(decision)
    if strict:
        decision.require_all()


@app.command()
def quantize(
    model: ModelArgument,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Such as int8, linear4, cluster2.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.", metavar="FILE")],
    calibration: CalibrationOption = None,
    per: Annotated[str | None, typer.Option(help="tensor, channel or group: what shares a scale or code book.")] = None,
    group_size: Annotated[int | None, typer.Option(help="How many, with --per group.", min=1)] = None,
    affine: Annotated[
        bool | None, typer.Option("--affine/--symmetric", help="A zero point for each scale, or none.")
    ] = None,
    ranges: Annotated[
        str | None, typer.Option(help="Range rule of activations: minmax, percentile, mse or entropy.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="onnx or litert; by the name of the output (.tflite) if left out.")
    ] = None,
    input_type: Annotated[str, typer.Option(help="LiteRT only: float32, int8 or uint8.")] = "float32",
    output_type: Annotated[str, typer.Option(help="LiteRT only: float32, int8 or uint8.")] = "float32",
    effort: EffortOption = "balanced",
    limit: LimitOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if anything asked for cannot be given.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Quantize a model and write the file."""
    from lowbit.quantization.quantize import quantize as run
    from lowbit.quantization.recipes import parse_recipe
    from lowbit.reports.inspection import print_written, written_json

    check_format(to, output)
    wanted = parse_recipe(
        recipe, per=per, group_size=group_size, symmetric=None if affine is None else not affine, ranges=ranges
    )
    with progress_bar(as_json) as progress:
        loaded = load_model(model, size=size, mean=mean, std=std, layout=layout)
        images = open_data(calibration, loaded, limit) if calibration else None
        quantized = run(loaded, wanted, calibration=images, effort=effort, strict=strict, progress=progress)
        quantized.save(output, input_type=input_type, output_type=output_type)
    ledger = read_file_ledger(output)
    if as_json:
        print_json(written_json(quantized, output, ledger, source_bytes=model.stat().st_size))
    else:
        print_written(quantized, output, ledger, source_bytes=model.stat().st_size)


@app.command()
def measure(
    files: Annotated[
        list[Path], typer.Argument(help="ONNX files of one model, the float one first.", metavar="FILE...")
    ],
    data: DataOption = None,
    engine: EngineOption = "onnxruntime",
    threads: ThreadsOption = 1,
    batch: BatchOption = 1,
    runs: RunsOption = 200,
    limit: LimitOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write results and report.html here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure any ONNX files side by side: accuracy, loss, size, latency, memory."""
    from lowbit.measurement.measure import measure as run

    images_from = required(data, "--data")
    with progress_bar(as_json) as progress:
        loaded = load_model(files[0], size=size, mean=mean, std=std, layout=layout)
        images = open_data(images_from, loaded, limit)
        comparison = run(files, images, engine=engine, threads=threads, batch=batch, runs=runs, progress=progress)
    if out is not None:
        from lowbit.files import staged_folder
        from lowbit.reports.files import write_reports

        with staged_folder(out) as stage:
            write_reports(comparison, stage)
    _show(comparison, as_json)


@app.command()
def compare(
    model: ModelArgument,
    data: DataOption = None,
    calibration: CalibrationOption = None,
    recipes: Annotated[str | None, typer.Option(help="Comma separated; the study's seven by default.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for files, results and report.", metavar="DIR")] = Path(
        "lowbit-out"
    ),
    engine: EngineOption = "onnxruntime",
    threads: ThreadsOption = 1,
    batch: BatchOption = 1,
    runs: RunsOption = 200,
    effort: EffortOption = "balanced",
    limit: LimitOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    same_data: Annotated[
        bool, typer.Option("--same-data", help="Insist on evaluating with calibration images.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if anything asked for cannot be given.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Quantize by every recipe and measure all files: the table, results.json, results.csv and report.html."""
    images_from = required(data, "--data")
    loaded = load_model(model, size=size, mean=mean, std=std, layout=layout)
    _compare(
        loaded,
        open_data(images_from, loaded, limit),
        open_data(calibration, loaded, None) if calibration else None,
        recipes=recipes,
        out=out,
        engine=engine,
        threads=threads,
        batch=batch,
        runs=runs,
        effort=effort,
        same_data=same_data,
        strict=strict,
        as_json=as_json,
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for files, results and report.", metavar="DIR")] = Path(
        "lowbit-demo"
    ),
    recipes: Annotated[str | None, typer.Option(help="Comma separated; the study's seven by default.")] = None,
    threads: ThreadsOption = 1,
    runs: RunsOption = 200,
    effort: EffortOption = "fast",
    as_json: JsonOption = False,
) -> None:
    """The whole study on the built-in model and images: nothing to download, nothing to prepare."""
    from lowbit.training.assets import built_in_model

    loaded = load_model(built_in_model())
    _compare(
        loaded,
        open_data("builtin:test", loaded, None),
        open_data("builtin:calibration", loaded, None),
        recipes=recipes,
        out=out,
        engine="onnxruntime",
        threads=threads,
        batch=1,
        runs=runs,
        effort=effort,
        same_data=False,
        strict=False,
        as_json=as_json,
    )


@app.command()
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


@app.command()
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


@app.command()
def recipes(as_json: JsonOption = False) -> None:
    """All recipes, with the widths they take."""
    from lowbit.quantization.recipes import RECIPES

    if as_json:
        print_json(
            [
                {"recipe": family, "bits": [widths[0], widths[-1]], "what": what}
                for family, (widths, _, what) in RECIPES.items()
            ]
        )
        return
    for family, (widths, _, what) in RECIPES.items():
        name = family if len(widths) == 1 else f"{family}{widths[0]}..{widths[-1]}"
        typer.echo(f"{name:<14} {what}")


@app.command()
def fetch(
    what: Annotated[str, typer.Argument(help="rps: the original Rock-Paper-Scissors images.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Download a data set, check it, and unpack it whole or not at all."""
    from lowbit.data.fetch import fetch_rps
    from lowbit.errors import DataError

    if what != "rps":
        raise DataError(f"no data set is called '{what}'.", remedy="Known: rps.")
    with progress_bar(as_json) as progress:
        path = fetch_rps(folder, progress=progress)
    print_json({"folder": str(path)}) if as_json else typer.echo(f"Ready in {path}: train/ and test/.")


@app.command()
def train(
    data: Annotated[str, typer.Argument(help="Folder of class folders, or builtin:train.", metavar="DATA")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.", metavar="FILE")],
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train everything from random weights, not only the last layers.")
    ] = False,
    weights: Annotated[
        str, typer.Option(help="'imagenet' to download the official weights, or a local .pth file of the same names.")
    ] = "imagenet",
    test: Annotated[str | None, typer.Option(help="Images to test the finished network on, once.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many passes.", min=1)] = None,
    size: Annotated[int, typer.Option(help="Side of the images, in pixels.", min=32)] = 128,
    seed: Annotated[int, typer.Option(help="Decides split, order, augmentation and first weights.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train the study's MobileNetV2 on a folder of class folders (extra: lowbit[train])."""
    import shlex

    from lowbit.errors import EngineError

    try:
        from lowbit.training.train import train as run
    except ModuleNotFoundError as error:
        raise EngineError(
            f"the package '{error.name}' is not installed.", where="lowbit train", remedy="pip install 'lowbit[train]'"
        ) from error
    with progress_bar(as_json) as progress:
        trained = run(
            data,
            output=output,
            epochs=epochs,
            from_scratch=from_scratch,
            weights=weights,
            seed=seed,
            size=size,
            test=test,
            command=shlex.join(["lowbit", *sys.argv[1:]]),
            progress=progress,
        )
    if as_json:
        sys.stdout.write(trained.metrics.read_text())
    else:
        typer.echo(f"Wrote {trained.model}, {trained.metrics} and {trained.curve}: {trained.parameters:,} parameters.")
        scores = [("validation", trained.validation), ("test", trained.test)]
        for name, score in scores:
            if score is not None:
                typer.echo(
                    f"{name}: accuracy {100 * score.accuracy:.2f} %, loss {score.loss:.3f}, {score.images} images."
                )


def main() -> None:
    """Run a command; errors for users become one sentence on standard error and an exit code."""
    try:
        code = app(standalone_mode=False)
    except LowbitError as error:
        fail(error)
    except Exception as error:
        # Typer's own complaints (unknown option, missing argument) know how to show themselves and their exit code.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise
    if code == EXIT_INTERRUPTED:
        sys.stderr.write("Interrupted; nothing was written.\n")
    sys.exit(code)


def _compare(
    model: "Model",
    images: "Images",
    calibration: "Images | None",
    *,
    recipes: str | None,
    out: Path,
    engine: str,
    threads: int,
    batch: int,
    runs: int,
    effort: str,
    same_data: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Compare in a staged folder, so that a failed run leaves nothing behind; the reports stand beside the files."""
    from lowbit.files import staged_folder
    from lowbit.measurement.compare import compare as run
    from lowbit.quantization.recipes import STUDY
    from lowbit.reports.files import write_reports

    names = [name.strip() for name in recipes.split(",") if name.strip()] if recipes else STUDY
    with staged_folder(out) as stage:
        with progress_bar(as_json) as progress:
            comparison = run(
                model,
                images,
                calibration=calibration,
                recipes=names,
                folder=stage,
                engine=engine,
                threads=threads,
                batch=batch,
                runs=runs,
                effort=effort,
                same_data=same_data,
                strict=strict,
                progress=progress,
            )
        write_reports(comparison, stage)
    _show(comparison, as_json)
    if not as_json:
        typer.echo(f"Files, results.json, results.csv and report.html are in {out}.")


def _show(comparison: "Comparison", as_json: bool) -> None:
    from lowbit.reports.terminal import print_comparison

    if as_json:
        sys.stdout.write(comparison.to_json())
    else:
        print_comparison(comparison)


if __name__ == "__main__":
    main()

"""`search`: the smallest or fastest file within a drop."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowbit.commands.opening import check_data, load_model, open_data
from lowbit.commands.options import (
    CalibrationOption,
    DataOptions,
    EffortOption,
    JsonOption,
    ModelArgument,
    PreprocessingOptions,
    ShortNamesOption,
    refuse_idle,
    words,
)
from lowbit.console import print_json, progress_bar
from lowbit.errors import DowngradeError, SchemeError

if TYPE_CHECKING:
    from lowbit.searching.limits import SearchLimits, SearchSettings
    from lowbit.searching.result import SearchResult

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
MILLISECONDS = {"ms": 1.0, "us": 1e-3, "s": 1e3, "": 1.0}


@dataclass(frozen=True)
class LimitOptions:
    """What a file has to keep, and what is to be least."""

    max_drop: Annotated[
        float | None,
        typer.Option(help="Maximum loss of accuracy, in points; without labels, percent of predictions that change."),
    ] = None
    minimize: Annotated[str | None, typer.Option(help="What is to be least: size (the default) or latency.")] = None
    max_size: Annotated[str | None, typer.Option(help="Maximum size of the file, such as 900KB or 1.5MB.")] = None
    max_latency: Annotated[str | None, typer.Option(help="Maximum time of one inference, such as 1ms.")] = None
    time: Annotated[str, typer.Option(help="How long to search, such as 90s or 5m.")] = "5m"
    confidence: Annotated[float | None, typer.Option(help="Confidence of the certificate; by default 0.95.")] = None

    def limits(self) -> "SearchLimits":
        """The same as the library takes it."""
        from lowbit.commands.archives import bytes_of
        from lowbit.searching.limits import SearchLimits

        return SearchLimits(
            self.max_drop,
            self.minimize or SearchLimits.minimize,
            None if self.max_size is None else bytes_of(self.max_size, "--max-size"),
            None if self.max_latency is None else amount_of(self.max_latency, MILLISECONDS, "--max-latency"),
            amount_of(self.time, SECONDS, "--time"),
            SearchLimits.confidence if self.confidence is None else self.confidence,
        )


@dataclass(frozen=True)
class SettingOptions:
    """How to search."""

    recipes: Annotated[
        str | None,
        typer.Option(help="Recipes or families that layers may get, separated by commas; by default all of use."),
    ] = None
    effort: EffortOption = "balanced"
    workers: Annotated[
        str, typer.Option(help="Number of processes, or the address of a Dask scheduler: tcp://HOST:8786.")
    ] = "1"
    seed: Annotated[int, typer.Option(help="Of the choice of samples.")] = 0
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the candidates that an earlier search left.")] = (
        False
    )
    short_names: ShortNamesOption = False
    engine: Annotated[str | None, typer.Option(help="Runtime that latency is measured on; by default onnxruntime.")] = (
        None
    )

    def settings(self, *, archive: bool) -> "SearchSettings":
        """The same as the library takes it."""
        from lowbit.searching.limits import SearchSettings

        return SearchSettings(
            recipes=tuple(words(self.recipes or "")),
            effort=self.effort,
            workers=self.workers,
            seed=self.seed,
            archive=archive,
            short_names=self.short_names,
            engine=self.engine or SearchSettings.engine,
            resume=self.resume,
        )


@dataclass(frozen=True)
class WrittenOptions:
    """What is written."""

    out: Annotated[
        Path,
        typer.Option(
            "--output", "--out", "-o", help="File to write: .onnx, or .lowbit for an archive.", metavar="FILE"
        ),
    ] = Path("searched.onnx")
    report: Annotated[Path | None, typer.Option("--report", help="Page to write: .html.", metavar="FILE")] = None
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail if a limit is not kept, or the drop not certified, and write no file."),
    ] = False


def search(
    model: ModelArgument,
    images: DataOptions,
    limits: LimitOptions,
    settings: SettingOptions,
    written: WrittenOptions,
    preprocessing: PreprocessingOptions,
    calibration: CalibrationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose a recipe for every layer: the smallest or fastest file within a drop, and how sure that is.

    Every finished candidate is kept with its plan in the folder FILE.search; --resume goes on with them.
    """
    from lowbit.files import check_ending, write_atomically
    from lowbit.quantization.rate.packed import ARCHIVES
    from lowbit.reports.search_page import search_page
    from lowbit.searching.search import search as run

    out, report = written.out, written.report
    check_ending(out, (".onnx", *ARCHIVES))
    if report is not None:
        check_ending(report, (".html",))
    source = check_data(images)
    wanted = limits.limits()
    if not wanted.timed:
        refuse_idle((("--engine", settings.engine),), "a latency", "--max-latency or --minimize latency")
    if wanted.max_drop is None:
        refuse_idle((("--minimize", limits.minimize), ("--confidence", limits.confidence)), "a drop", "--max-drop")
    chosen = settings.settings(archive=out.suffix in ARCHIVES)
    folder = out.with_name(f"{out.stem}.search")
    with progress_bar(as_json) as progress:
        loaded = load_model(model, preprocessing)
        result = run(
            loaded,
            open_data(source, loaded, preprocessing, limit=images.limit, labels=images.labels),
            wanted,
            calibration=open_data(calibration, loaded, preprocessing) if calibration else None,
            settings=chosen,
            folder=folder,
            progress=progress,
        )
    if written.strict and not result.interrupted:
        _check_kept(result, model, folder)
    result.save(out)
    if report is not None:
        given = ("--calibration", calibration) if calibration else ("--calibration", source)
        write_atomically(report, search_page(result, str(model), given, report.parent))
    _show(result, out, as_json)
    if result.interrupted:
        raise KeyboardInterrupt


def _check_kept(result: "SearchResult", model: Path, folder: Path) -> None:
    """Raise an error if a limit is not kept, or the drop is not certified.

    Raises:
        DowngradeError: so it is.
    """
    from lowbit.reports.searched import answer

    unsure = result.certificate is not None and not result.certificate.holds
    if result.met and not unsure:
        return
    what = result.certificate.sentence() if result.met and result.certificate else answer(result)
    raise DowngradeError(
        what, where=str(model), remedy=f"All candidates are in {folder}: --resume without --strict writes the best."
    )


def _show(result: "SearchResult", out: Path, as_json: bool) -> None:
    from lowbit.reports.searched import print_search

    if as_json:
        print_json({"file": str(out), **result.to_json()})
    else:
        print_search(result, out)


def amount_of(text: str, units: dict[str, float], option: str) -> float:
    """A number with a unit, such as 90s, 5m or 1ms.

    Raises:
        SchemeError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in units:
        known = ", ".join(f"5{unit}" for unit in units if unit)
        raise SchemeError(f"{option} '{text}' is no time.", remedy=f"Write for example {known}.")
    return float(match[1]) * units[match[2]]

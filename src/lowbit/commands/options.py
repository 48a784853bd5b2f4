"""Options that several commands take, each with one name and one meaning; groups hold what belongs together."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowbit.errors import SchemeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowbit.measurement.conditions import Conditions
    from lowbit.quantization.planning.recipes import Recipe

ModelArgument = Annotated[
    Path, typer.Argument(help="A model: .onnx, .keras, .h5, float .tflite, .pt2 or TorchScript.", metavar="MODEL")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="File to write.", metavar="FILE")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
CalibrationOption = Annotated[
    str | None,
    typer.Option(
        "--calibration", help="Calibration images, or arrays, as for --data; labels are not used.", metavar="DIR"
    ),
]
ControlOption = Annotated[
    bool, typer.Option("--control", help="Also compress the float file with zstd -19 and xz -9, for comparison.")
]
ShortNamesOption = Annotated[
    bool,
    typer.Option("--short-names", help="Shorten tensor names; drop node names, shapes of inner tensors and comments."),
]
EffortOption = Annotated[str, typer.Option(help="How long to search for codes: fast, balanced or best.")]
RecipesOption = Annotated[
    str | None, typer.Option("--recipes", help="Recipes, separated by commas; by default the seven of the study.")
]
FolderOption = Annotated[Path, typer.Option("--out", help="Folder for files, results and report.", metavar="DIR")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        help="{lowbit.engines.session:ENGINES}; several separated by commas; or auto: all that are installed.",
    ),
]
ThreadsOption = Annotated[int, typer.Option(help="Number of threads while timing.", min=1)]
BatchOption = Annotated[int, typer.Option(help="Batch size while timing.", min=1)]
RunsOption = Annotated[int, typer.Option(help="Number of timed runs per file; 0 skips latency.", min=0)]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="Processor that int files target: native (this machine, the default), "
        "{lowbit.quantization.planning.target:TARGETS}.",
    ),
]
InputOption = Annotated[
    str,
    typer.Option(
        "--input",
        help="Input type: float32 (normalized by the caller), uint8 (image bytes, which the file normalizes itself), "
        "int8 (codes, LiteRT only).",
    ),
]
InputLayoutOption = Annotated[
    str, typer.Option("--input-layout", help="Layout of image bytes: NHWC, as image libraries give them, or NCHW.")
]
InputSizeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input-size",
        help="Size of an input with open dimensions, such as 1x3x224x224; - leaves one open.",
        metavar="[NAME=]SIZE",
    ),
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Fail if anything requested cannot be given.")]


@dataclass(frozen=True)
class DataOptions:
    """Evaluation samples."""

    data: Annotated[
        str | None,
        typer.Option(
            help="Evaluation images (a folder of class folders, an image list, builtin:test), or arrays for the "
            "inputs (a .npz file, a folder of them).",
            metavar="DIR",
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Labels in files of their own: a COCO .json, a folder of YOLO .txt files or of masks, a .npy.",
            metavar="PATH",
        ),
    ] = None
    limit: Annotated[int | None, typer.Option(help="Maximum number of evaluation samples.", min=1)] = None


@dataclass(frozen=True)
class CalibrationOptions:
    """Calibration samples."""

    calibration: CalibrationOption = None
    limit: Annotated[int | None, typer.Option(help="Maximum number of calibration samples.", min=1)] = None


@dataclass(frozen=True)
class ImageOptions:
    """How images become the model's input."""

    image_size: Annotated[str | None, typer.Option(help="Image size in pixels: one number, or HxW.")] = None
    mean: Annotated[str | None, typer.Option(help="Per-channel mean, such as 0.485,0.456,0.406, or 'imagenet'.")] = None
    std: Annotated[
        str | None, typer.Option(help="Per-channel standard deviation, such as 0.229,0.224,0.225, or 'imagenet'.")
    ] = None
    layout: Annotated[str | None, typer.Option(help="Layout of the model's input: NCHW or NHWC.")] = None
    colors: Annotated[
        str | None, typer.Option(help="Order of the model's color channels: RGB, or BGR as with OpenCV.")
    ] = None
    crop: Annotated[
        float | None,
        typer.Option(
            help="Share of the sides of an image that is taken from its middle, such as 0.875; by default whole images "
            "are resized, whatever their proportions."
        ),
    ] = None


@dataclass(frozen=True)
class PreprocessingOptions(ImageOptions):
    """How samples become the model's inputs, where that is not what the model itself says."""

    input_size: InputSizeOption = None
    feed: Annotated[
        list[str] | None,
        typer.Option(
            help="An input that is the same for every sample: NAME=ones, NAME=0.5 or NAME=array.npy.",
            metavar="NAME=VALUE",
        ),
    ] = None


@dataclass(frozen=True)
class RuleOptions:
    """Other recipes for some layers."""

    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            help="Another recipe for some layers, such as 'depthwise=linear8', 'op:Gemm=int8', 'features.0.*=float', "
            "'first=float' or 'bytes<4096=float'; later rules win.",
            metavar="PATTERN=RECIPE",
        ),
    ] = None

    @property
    def rules(self) -> tuple[str, ...]:
        """Their texts, in order."""
        return tuple(self.rule or ())


@dataclass(frozen=True)
class RecipeOptions(RuleOptions):
    """A recipe, with what is requested in place of its defaults; or a plan, which holds all that these would say."""

    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Such as int8, linear4 or cluster2; see `recipes`.")
    ] = None
    per: Annotated[str | None, typer.Option(help="What shares a scale or code book: tensor, channel or group.")] = None
    group_size: Annotated[int | None, typer.Option(help="Group size, with --per group.", min=1)] = None
    affine: Annotated[bool | None, typer.Option("--affine/--symmetric", help="With or without zero points.")] = None
    ranges: Annotated[
        str | None, typer.Option(help="Range rule for activations: auto, {lowbit.calibration.ranges:RANGE_RULES}.")
    ] = None
    target: TargetOption = None
    extra_bits: Annotated[
        float | None,
        typer.Option(
            help="Below 8 bits: bits per weight, over all layers, to spend on small layers. By default 0.4; 0 gives "
            "every layer the same."
        ),
    ] = None
    plan: Annotated[
        Path | None,
        typer.Option(help="Follow this plan, which `lowbit plan --out` wrote, in place of a recipe.", metavar="FILE"),
    ] = None

    scales: Annotated[
        str | None,
        typer.Option(help="Integer recipes: {lowbit.quantization.planning.recipes:SCALES} (powers of two, symmetric)."),
    ] = None

    @property
    def given(self) -> bool:
        """Whether any of them is."""
        return self != RecipeOptions()

    def parsed(self) -> "Recipe":
        """The recipe; rules may bring the integers that its target and ranges are for.

        Raises:
            SchemeError: none is given, or no such one, or a value that it does not take.
        """
        if self.recipe is None:
            raise SchemeError("no recipe is given.", remedy="Give one, such as -r int8; `lowbit recipes` lists all.")
        from lowbit.quantization.planning.recipes import parse_recipe
        from lowbit.quantization.planning.rules import with_activations

        recipe = parse_recipe(
            self.recipe,
            per=self.per,
            group_size=self.group_size,
            symmetric=None if self.affine is None else not self.affine,
            extra_bits=self.extra_bits,
            scales=self.scales,
        )
        return with_activations(recipe, self.rules, ranges=self.ranges, target=self.target)


@dataclass(frozen=True)
class SearchOptions:
    """How codes are searched for."""

    effort: Annotated[
        str | None, typer.Option(help="How long to search for codes: fast, balanced (the default) or best.")
    ] = None
    steps: Annotated[
        str | None,
        typer.Option(
            help="Steps to try, separated by commas: {lowbit.quantization.planning.steps:STEP_NAMES}; or none. By "
            "default recipe and effort decide.",
            metavar="STEP[,STEP]|none",
        ),
    ] = None
    strict: StrictOption = False

    def chosen_steps(self) -> list[str] | None:
        """The steps by name; None leaves the choice to recipe and effort."""
        if self.steps is None:
            return None
        return [] if self.steps.strip() == "none" else words(self.steps)


@dataclass(frozen=True)
class ConditionOptions:
    """How files are measured."""

    engine: EngineOption = "onnxruntime"
    threads: ThreadsOption = 1
    batch: BatchOption = 1
    runs: RunsOption = 200
    emulate: Annotated[str, typer.Option(help="x86: also show what integer ONNX files answer on x86 without VNNI.")] = (
        ""
    )
    control: ControlOption = False
    task: Annotated[
        str | None,
        typer.Option(
            help="What files are judged by: {lowbit.measurement.tasks.table:TASKS}; by default outputs and labels say."
        ),
    ] = None

    def conditions(self) -> "Conditions":
        """The same as the library takes it."""
        from lowbit.measurement.conditions import Conditions

        return Conditions(**asdict(self))


def refuse_idle(options: "Iterable[tuple[str, object]]", without: str, add: str) -> None:
    """Refuse options that are given and would do nothing.

    Args:
        options: names and values; None, False and nothing are what is not given.
        without: what they need, such as "a goal".
        add: options that bring it.

    Raises:
        SchemeError: one is given.
    """
    for option, value in options:
        if value is not None and value is not False and value != []:
            raise SchemeError(f"{option} has no effect without {without}.", remedy=f"Add {add}, or leave {option} out.")


def words(text: str) -> list[str]:
    """The words of an option that takes several, separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]

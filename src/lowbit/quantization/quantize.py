"""Quantize a model: decide, then do; the value that comes out can be saved."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowbit.calibration.statistics import Statistics
from lowbit.data.images import Images, open_images
from lowbit.errors import DataError, SchemeError
from lowbit.files import write_atomically
from lowbit.formats.encoded import Encoded
from lowbit.formats.litert import to_litert
from lowbit.formats.onnx import to_onnx
from lowbit.formats.opening import is_litert, load
from lowbit.graph.model import Model
from lowbit.progress import SILENT, Progress
from lowbit.quantization.effort import EFFORTS
from lowbit.quantization.plan import Plan, plan
from lowbit.quantization.recipes import Recipe, parse_recipe
from lowbit.quantization.steps import StepResult, Work, encode_plainly, metadata, run_steps


@dataclass(frozen=True)
class Quantized:
    """A quantized model: the plan that was followed and the integers it led to.

    Attributes:
        plan: what was decided, and why.
        encoded: the float graph with the codes of its quantized tensors.
        steps: which steps ran, and what each brought; empty without calibration images.
        calibration: ranges of the activations; None for recipes that leave them float.
    """

    plan: Plan
    encoded: Encoded
    steps: tuple[StepResult, ...] = ()
    calibration: Statistics | None = None

    @property
    def model(self) -> Model:
        """The float model this was made from."""
        return self.encoded.model

    def to_bytes(self) -> bytes:
        """The content of the ONNX file."""
        return to_onnx(self.encoded)

    def save(self, path: Path | str, *, input_type: str = "float32", output_type: str = "float32") -> Path:
        """Write the file, whole or not at all: LiteRT if its name ends in .tflite, else ONNX.

        Args:
            path: where to.
            input_type: LiteRT only: float32, int8 or uint8.
            output_type: likewise.

        Raises:
            OutputError: the folder is not writable, or the disk is full.
            ModelError: the format has no form for something in the model; the message names it.
        """
        if is_litert(path):
            return write_atomically(path, to_litert(self.encoded, input_type=input_type, output_type=output_type))
        if (input_type, output_type) != ("float32", "float32"):
            raise SchemeError(
                "an ONNX file takes and gives float32.", remedy="Leave the types out, or write a .tflite."
            )
        return write_atomically(path, self.to_bytes())


def quantize(
    model: Model | str | Path,
    recipe: str | Recipe,
    *,
    calibration: Images | str | Path | Iterable[Any] | None = None,
    effort: str = "balanced",
    strict: bool = False,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Quantized:
    """Quantize a trained model.

    With calibration images every recipe looks at what its layers really compute: codes are chosen for the error of the
    layer's output, each layer on what the quantized layers before it give, and biases are corrected. Without them only
    the weights themselves are looked at.

    Args:
        model: a loaded model or the path of one.
        recipe: a recipe or its name, such as `int8`, `linear4`, `cluster2`.
        calibration: images without need of labels; anything `open_images` takes.
        effort: a row of `EFFORTS`: how long to search.
        strict: refuse if anything asked for cannot be given.
        threads: threads of the runtime during calibration; 0 leaves it to the runtime.
        progress: told as the work goes on.

    Raises:
        SchemeError: no such recipe or effort, or weights that cannot be encoded.
        DataError: the recipe needs calibration images and there are none.
        ModelError: nothing to quantize, or quantized already.
        DowngradeError: strict, and something cannot be given.
    """
    if not isinstance(model, Model):
        model = load(model)
    recipe = parse_recipe(recipe)
    if effort not in EFFORTS:
        raise SchemeError(f"no effort is called '{effort}'.", remedy=f"Choose one of: {', '.join(EFFORTS)}.")
    decision = plan(model, recipe, effort=effort, with_images=calibration is not None)
    if strict:
        decision.require_all()
    if recipe.integer and calibration is None:
        raise DataError(
            f"recipe '{recipe.name}' turns activations into integers and must see some images first.",
            remedy="Give calibration images: --calibration DIR, or calibration= in Python. A few hundred are plenty.",
        )
    if calibration is None or not (decision.steps or recipe.integer):
        return Quantized(decision, _plain(model, decision, progress))
    images = calibration if isinstance(calibration, Images) else open_images(calibration, model.preprocessing)
    work = Work(model, decision, images, EFFORTS[effort], threads, progress)
    encoded, steps, statistics = run_steps(work)
    return Quantized(decision, encoded, steps, statistics)


def _plain(model: Model, decision: Plan, progress: Progress) -> Encoded:
    """Every tensor by its scheme alone."""
    return Encoded(model, weights=encode_plainly(model, decision, progress), metadata=metadata(decision.recipe))

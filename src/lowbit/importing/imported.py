"""What goes into every reader of another framework's models, and what comes out."""

import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lowbit.engines import open_session
from lowbit.errors import ModelError
from lowbit.extras import missing
from lowbit.graph.sizes import Sizes

Array = np.ndarray[Any, np.dtype[Any]]

COLOR = re.compile(r"\x1b\[[0-9;]*m")
# The largest difference of two runtimes that are right, as a share of the largest value: float32 sums in another order.
SAME = 1e-3
SMALL = 1e-3  # outputs below it, such as a probability of nearly zero, may differ by that share of it


@dataclass(frozen=True)
class Given:
    """What a caller says besides the model.

    Attributes:
        example: one input, or a tuple or dict of them, with the batch as first dimension.
        weights: a .safetensors file with the weights of a torch module.
        sizes: of inputs with open dimensions, by name ("" is the only one).
    """

    example: object | None = None
    weights: Path | None = None
    sizes: Sizes = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """A model that has become an ONNX message.

    Attributes:
        proto: nobody else's, so that it may be changed.
        source: file name, or the type of the object.
        trained_parameters: as the framework counts them; None if the message tells.
    """

    proto: onnx.ModelProto
    source: str
    trained_parameters: int | None = None


def require(packages: Sequence[str], extra: str, where: str) -> None:
    """Refuse a model whose framework is not installed.

    Args:
        packages: names when imported.
        extra: that brings them all.
        where: the model.

    Raises:
        ModelError: one is missing.
    """
    for package in packages:
        try:
            found = importlib.util.find_spec(package) is not None
        except ValueError:  # what find_spec says of modules that were taken out of sys.modules
            found = False
        if not found:
            raise missing(package, "reading it", extra=extra, where=where, kind=ModelError)


def first_line(error: BaseException) -> str:
    """What was the cause of another library's error, in one line that ends without a full stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in COLOR.sub("", str(error)).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".: ")


@contextmanager
def quoted(doing: str, where: str, remedy: str) -> Iterator[None]:
    """Turn whatever a framework raises within into one sentence: models may make it raise anything."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{doing}: {first_line(error)}.", where=where, remedy=remedy) from error


def check_answers(proto: onnx.ModelProto, inputs: Sequence[Array], wanted: Sequence[Array], source: str) -> None:
    """Refuse a translation that does not answer as the original does.

    Exporters that trace a network keep as constants what depends on the one input that they saw.

    Args:
        proto: the translation; its outputs are in the order of `wanted`.
        inputs: a batch for each input, in its order.
        wanted: what the original gives.
        source: for messages.

    Raises:
        ModelError: another shape, or values that differ by more than `SAME` of the largest.
    """
    session = open_session(proto.SerializeToString())
    answers = session.run(dict(zip(session.input_names, inputs, strict=True)))
    for name, mine, theirs in zip(session.output_names, answers.values(), wanted, strict=True):
        if mine.shape != theirs.shape:
            raise _differs(source, f"output '{name}' has the shape {list(mine.shape)} instead of {list(theirs.shape)}")
        numbers = ~(np.isnan(mine) & np.isnan(theirs))  # a logarithm of random numbers has none
        largest = float(np.max(np.abs(theirs[numbers]), initial=SMALL))
        apart = float(np.max(np.abs(mine[numbers].astype(np.float64) - theirs[numbers]), initial=0.0)) / largest
        if not apart <= SAME:
            raise _differs(source, f"output '{name}' differs by {apart:.2g} of its largest value")


def _differs(source: str, how: str) -> ModelError:
    return ModelError(
        f"its ONNX form does not answer as it does itself: {how}, on random inputs.",
        where=source,
        remedy="Look for code in the model that depends on the values or the number of its inputs.",
    )

"""What a runtime must do for lowbit, and the one table of runtimes.

A new engine is one file, a module with `open_session(model, threads, optimized_to)` and `version()`, and one row in
`ENGINES`. A session runs named arrays and says the names of its inputs and outputs.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lowbit.errors import EngineError
from lowbit.extras import imported, missing
from lowbit.graph.light_model import LightModel

Array = np.ndarray[Any, np.dtype[Any]]

# Every engine that is installed.
AUTO = "auto"


@dataclass(frozen=True)
class WrittenFile:
    """The file that a comparison writes for an engine.

    Attributes:
        to: the format, as `FileForm.to` names it.
        ending: of the file's name; files of engines with the same ending are one file.
    """

    to: str
    ending: str


ONNX = WrittenFile("onnx", ".onnx")


@dataclass(frozen=True)
class Engine:
    """One runtime: where its code is, and which files it wants.

    Attributes:
        label: its name in sentences.
        module: with `open_session` and `version`, imported when the engine is first used. It may also have
            `remarks(path)`: what a reader of measurements must know about how the engine runs a file.
        package: that the module needs.
        reads: ending of the files that it opens.
        float_file: what is written for it of recipes that compute in float. The format also says which small networks
            measure the processor.
        integer_file: likewise, of recipes that compute in integers.
        float_kernels: operators that it computes in float even between integers, with the reason.
        takes_light: whether it takes a `LightModel`, whose weights stay where they are.
    """

    label: str
    module: str
    package: str
    reads: str = ".onnx"
    float_file: WrittenFile = ONNX
    integer_file: WrittenFile = ONNX
    float_kernels: Mapping[str, str] = field(default_factory=dict)
    takes_light: bool = False


LITERT = WrittenFile("litert", ".tflite")
ENGINES: dict[str, Engine] = {
    "onnxruntime": Engine(
        "ONNX Runtime",
        "lowbit.engines.onnxruntime",
        "onnxruntime",
        float_kernels={
            "ConvTranspose": "ONNX Runtime has no integer kernel for it; its float kernel computes on the same codes"
        },
        takes_light=True,
    ),
    "openvino": Engine(
        "OpenVINO",
        "lowbit.engines.openvino",
        "openvino",
        integer_file=WrittenFile("openvino", "-openvino.onnx"),
    ),
    "litert": Engine(
        "LiteRT",
        "lowbit.engines.litert",
        "ai_edge_litert",
        reads=".tflite",
        float_file=LITERT,
        integer_file=LITERT,
    ),
}


class Session(Protocol):
    """One loaded model, ready to run."""

    engine: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, for one batch."""
        ...


def open_session(
    model: bytes | Path | str | LightModel,
    *,
    engine: str = "onnxruntime",
    threads: int = 0,
    optimized_to: Path | None = None,
) -> Session:
    """Load a model file, or its bytes, into a runtime.

    Args:
        model: path of a model file, a serialized model, or, where the engine takes it, a light one.
        engine: a row of `ENGINES`.
        threads: threads inside one operator; 0 leaves the number to the runtime.
        optimized_to: where to write the graph that the runtime really runs, for those who want to look at it.

    Raises:
        EngineError: unknown or missing engine, or one that refuses the model.
    """
    if isinstance(model, LightModel) and engine in ENGINES and not ENGINES[engine].takes_light:
        raise EngineError(
            "the engine takes whole models only.", where=f"engine '{engine}'", remedy="Give it the model's to_bytes()."
        )
    return _module(engine).open_session(model, threads=threads, optimized_to=optimized_to)  # type: ignore[no-any-return]


def fed(session: Session, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays as a session takes them: by name, without those that it has no input for; one alone goes to an only input.

    Raises:
        EngineError: an input for which there is no array.
    """
    if len(inputs) == len(session.input_names) == 1:
        return dict(zip(session.input_names, inputs.values(), strict=True))
    missing = [name for name in session.input_names if name not in inputs]
    if missing:
        raise EngineError(
            f"there is no array for its input '{missing[0]}', only for {', '.join(inputs)}.",
            where=f"engine '{session.engine}'",
        )
    return {name: inputs[name] for name in session.input_names}


def engine_version(engine: str) -> str:
    """Version of an installed engine's package."""
    return str(_module(engine).version())


def remarks(path: Path, engine: str) -> tuple[str, ...]:
    """What a reader of measurements must know about how an engine runs a file; mostly nothing."""
    said = getattr(_module(engine), "remarks", None)
    return said(path) if said is not None else ()


def installed_engines() -> tuple[str, ...]:
    """Names of the engines that can be used now, in the order of the table."""
    return tuple(name for name, engine in ENGINES.items() if importlib.util.find_spec(engine.package) is not None)


def chosen_engines(text: str) -> tuple[str, ...]:
    """The engines that a user named: one, several with commas, or `auto` for all that are installed.

    Raises:
        EngineError: no such engine, or none.
    """
    if text.strip() == AUTO:
        return installed_engines()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names or ("",):
        if name not in ENGINES:
            raise EngineError(
                f"no engine is called '{name}'.",
                remedy=f"Choose one or more of: {', '.join(ENGINES)}, or {AUTO} for all that are installed.",
            )
    return names


def _module(engine: str) -> Any:  # noqa: ANN401 - modules have no narrower type
    if engine not in ENGINES:
        raise EngineError(f"no engine is called '{engine}'.", remedy=f"Choose one of: {', '.join(ENGINES)}.")
    row = ENGINES[engine]
    needed_by = f"engine '{engine}'"
    if importlib.util.find_spec(row.package) is None:
        raise missing(row.package, needed_by)
    return imported(row.module, needed_by, package=row.package)

"""What a runtime must do for lowbit, and the one table of runtimes.

An engine is a module with `open_session(model, threads, optimized)` and `version()`; a session runs named arrays and
says the names of its inputs and outputs. A new engine is one file and one row in `ENGINES`.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lowbit.errors import EngineError
from lowbit.graph.model import LightModel

Array = np.ndarray[Any, np.dtype[Any]]

# name -> (module, package on PyPI, extra of lowbit that brings it)
ENGINES: dict[str, tuple[str, str, str | None]] = {
    "onnxruntime": ("lowbit.engines.onnxruntime", "onnxruntime", None),
    "openvino": ("lowbit.engines.openvino", "openvino", "openvino"),
    "litert": ("lowbit.engines.litert", "ai_edge_litert", "litert"),
}


# Every engine that is installed.
AUTO = "auto"


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
        model: path of a model file, a serialised model, or, for ONNX Runtime only, a light one.
        engine: a row of `ENGINES`.
        threads: threads inside one operator; 0 leaves the number to the runtime.
        optimized_to: where the runtime shall write the graph that it really runs, for those who want to look at it.

    Raises:
        EngineError: unknown or missing engine, or one that refuses the model.
    """
    if isinstance(model, LightModel) and engine != "onnxruntime":
        raise EngineError(
            "the engine takes whole models only.", where=f"engine '{engine}'", remedy="Give it the model's to_bytes()."
        )
    return _module(engine).open_session(model, threads=threads, optimized_to=optimized_to)  # type: ignore[no-any-return]


def engine_version(engine: str) -> str:
    """Version of an installed engine's package."""
    return str(_module(engine).version())


def installed_engines() -> tuple[str, ...]:
    """Names of the engines that can be used now, in the order of the table."""
    return tuple(name for name, (_, package, _) in ENGINES.items() if importlib.util.find_spec(package) is not None)


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
    module, package, extra = ENGINES[engine]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise EngineError(
            f"the package '{package}' is not installed.",
            where=f"engine '{engine}'",
            remedy=f"Run: pip install 'lowbit[{extra}]'" if extra else f"Run: pip install {package}",
        ) from error
    return importlib.import_module(module)

"""Running other tools: in environments of their own, with what they are given, and what goes wrong in one line."""

import contextlib
import io
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import version_converter
from rows import BUILD, HERE, ROOT

from lowbit.data.images import Images
from lowbit.graph.model import Model

PER_CHANNEL_OPSET = 13  # the first in which DequantizeLinear has an axis


def peer(name: str, *, from_source: str | None = None) -> Path:
    """Python of a peer's own environment, made from `requirements/NAME.txt` the first time.

    Args:
        name: of the environment.
        from_source: a package that is built there, without its dependencies.
    """
    folder = BUILD / "peers" / name
    python, stamp = folder / "bin" / "python", folder / ".installed"
    requirements = HERE / "requirements" / f"{name}.txt"
    if not installed(name):
        print(f"installing {from_source or requirements.name} into build/peers/{name}", flush=True)
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        run([*pip, "--only-binary", ":all:", "-r", requirements])
        if from_source:
            run([*pip, "--no-deps", "--no-build-isolation", from_source])
        stamp.write_text(requirements.read_text())
    return python


def installed(name: str) -> bool:
    """Whether a peer's environment is there, as `requirements/NAME.txt` has it now."""
    stamp = BUILD / "peers" / name / ".installed"
    return stamp.exists() and stamp.read_text() == (HERE / "requirements" / f"{name}.txt").read_text()


def run(command: Sequence[object], *, timeout: float | None = None) -> str:
    """Run a command; returns the last line that it printed.

    Raises:
        RuntimeError: it failed, with the last line of its errors.
    """
    words = [str(part) for part in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{Path(words[1]).name}: {last_line(done.stderr)}")
    return last_line(done.stdout)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]


def why(error: BaseException) -> str:
    """An error in one line for a row's note, without the path of this folder."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].replace(str(ROOT), ".")


def with_opset(path: Path, folder: Path) -> Path:
    """A file whose operators can have scales per channel: the same one, or a converted one in `folder`."""
    proto = onnx.load(path)
    if next(entry.version for entry in proto.opset_import if not entry.domain) >= PER_CHANNEL_OPSET:
        return path
    onnx.save(version_converter.convert_version(proto, PER_CHANNEL_OPSET), folder / "converted.onnx")
    return folder / "converted.onnx"


def quantize_static(model: Model, images: Images, path: Path, output: Path, **options: Any) -> None:
    """ONNX Runtime's static quantization after its own preprocessing, one image at a time as its documentation shows.

    Args:
        model: names the input.
        images: to calibrate on.
        path: the float file.
        output: the file to write.
        options: for `quantize_static`; formats, types and methods by name.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = ({model.input.name: batch.x} for batch in images.batches(1))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.images, None)

    kinds = {
        "quant_format": quantization.QuantFormat,
        "activation_type": quantization.QuantType,
        "weight_type": quantization.QuantType,
        "calibrate_method": quantization.CalibrationMethod,
    }
    given = {name: kinds[name][value] if name in kinds else value for name, value in options.items()}
    prepared = output.parent / "prepared.onnx"
    # Symbolic shapes need sympy, and these models have only the batch.
    quant_pre_process(str(with_opset(path, output.parent)), str(prepared), skip_symbolic_shape=True)
    with contextlib.redirect_stdout(io.StringIO()):
        quantization.quantize_static(str(prepared), str(output), Reader(), **given)

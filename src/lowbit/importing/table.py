"""Which reader takes which file or object: a new format is one module and one row.

Endings decide. What cannot be read has a row too: a sentence that says what to do instead.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from lowbit.errors import ModelError
from lowbit.importing.imported import Given, Imported
from lowbit.importing.keras import import_keras, read_keras
from lowbit.importing.tflite.read import read_tflite
from lowbit.importing.torch import import_exported_program, import_module, import_script
from lowbit.importing.torch_files import read_exported_program, read_pickle, read_script

Reader = Callable[[Path, Given], Imported]

READERS: Mapping[str, Reader] = {
    ".keras": read_keras,
    ".h5": read_keras,
    ".hdf5": read_keras,
    ".tflite": read_tflite,
    ".pt2": read_exported_program,
    ".pt": read_script,
    ".ts": read_script,
    ".torchscript": read_script,
    ".pth": read_script,
    ".ckpt": read_pickle,
    ".pkl": read_pickle,
}
# Objects by the package and the name of one of their classes, the narrowest first.
OBJECTS: Mapping[tuple[str, str], Callable[..., Imported]] = {
    ("keras", "Model"): import_keras,
    ("torch", "ExportedProgram"): import_exported_program,
    ("torch", "ScriptModule"): import_script,
    ("torch", "Module"): import_module,
}
TO_ONNX = "python -m tf2onnx.convert --opset 17 --output model.onnx"
# Endings of what lowbit does not read: what it is, and what to do.
TOLD: Mapping[str, tuple[str, str]] = {
    ".safetensors": (
        "holds weights only, without the network",
        "In Python, give lowbit.load the torch module that they belong to: "
        "lowbit.load(module, weights='model.safetensors', example=torch.zeros(1, 3, height, width)).",
    ),
    ".pb": (
        "is a TensorFlow graph",
        f"Convert it: pip install tf2onnx tensorflow, then {TO_ONNX} --saved-model FOLDER for the folder that it is "
        "in, or --graphdef FILE.pb --inputs NAME:0 --outputs NAME:0 for a frozen graph.",
    ),
    ".mlmodel": ("is a Core ML model, which cannot become ONNX again", "Give the network that it was made from."),
    ".mlpackage": ("is a Core ML model, which cannot become ONNX again", "Give the network that it was made from."),
    ".engine": ("is compiled by TensorRT for one GPU", "Give the ONNX file that it was built from."),
    ".plan": ("is compiled by TensorRT for one GPU", "Give the ONNX file that it was built from."),
    ".xml": (
        "is an OpenVINO model, which cannot become ONNX again",
        "Give the network that it was made from; lowbit's files run in OpenVINO as they are.",
    ),
    ".pdmodel": (
        "is a Paddle model",
        "Convert it: pip install paddle2onnx, then paddle2onnx --model_dir FOLDER --save_file model.onnx.",
    ),
    ".caffemodel": ("is a Caffe model", "Convert it to ONNX with caffe2onnx, or export the network again."),
}


def reader_of(path: Path) -> Reader | None:
    """Who reads a file; None of ONNX files, and of endings that nobody knows.

    Raises:
        ModelError: a format that lowbit does not read; says what to do.
    """
    ending = path.suffix.lower()
    if path.is_dir() and (path / "saved_model.pb").exists():
        raise ModelError(
            "is a TensorFlow SavedModel.",
            where=str(path),
            remedy=f"Convert it: pip install tf2onnx tensorflow, then {TO_ONNX} --saved-model {path}. "
            "If it came from Keras, call model.save('model.keras') there, and give lowbit that file.",
        )
    if path.name.lower().endswith(".weights.h5"):
        raise ModelError(
            "holds weights only, without the network.",
            where=str(path),
            remedy="In Python, build the model, call model.load_weights on the file, and give lowbit.load the model.",
        )
    if ending in TOLD and path.exists():
        what, remedy = TOLD[ending]
        raise ModelError(f"{what}.", where=str(path), remedy=remedy)
    return READERS.get(ending) if path.is_file() else None


def import_object(model: object, given: Given) -> Imported:
    """A model that another framework holds in this process.

    Raises:
        ModelError: it is none.
    """
    classes = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(model).__mro__}
    for known, read in OBJECTS.items():
        if known in classes:
            return read(model, given)
    raise ModelError(
        f"cannot load a {type(model).__name__}.",
        remedy="Give a path, an onnx.ModelProto, a keras.Model, or a torch.nn.Module with an example input.",
    )

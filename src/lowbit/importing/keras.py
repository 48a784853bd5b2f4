"""Keras 3: `.keras` and `.h5` files and `keras.Model` objects, through Keras' own export to ONNX; without TensorFlow.

The export, on Keras' torch backend, traces the network on one sample. So what comes out is run beside Keras on two
random samples, and refused if it answers otherwise. Where Keras runs on another backend, another process exports.

Files are opened with `safe_mode`: what would run code that is stored in the file, such as a Lambda layer, is refused.
Source: the Keras API, `Model.export` and `keras.models.load_model`.
"""

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from lowbit.errors import ModelError
from lowbit.files import ZIP_DAMAGES
from lowbit.graph.model import LARGEST_BYTES
from lowbit.importing.imported import Array, Given, Imported, check_answers, first_line, quoted, require
from lowbit.importing.keras_process import exported_on_torch
from lowbit.importing.memory_limit import bounded_by_file
from lowbit.importing.names import name_layers, rename
from lowbit.importing.torch import silent, with_open_batch

if TYPE_CHECKING:
    import keras

BACKEND = "torch"
EXTRA = "keras"
STATISTICS = frozenset(("moving_mean", "moving_variance", "mean", "variance", "count"))
ITSELF = "Build or load the model in Python, and give lowbit.load the keras.Model itself."


def read_keras(path: Path, given: Given) -> Imported:
    """A `.keras` or whole-model `.h5` file.

    Raises:
        ModelError: Keras is missing or cannot read it, or it needs code that is not in Keras.
    """
    source = str(path)
    _check_archive(path)
    keras = _keras(source)
    with bounded_by_file(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = keras.models.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # whatever a file makes Keras raise
            raise _refusal(error, source) from error
        return import_keras(model, given, source)


def import_keras(model: "keras.Model", given: Given, source: str = "") -> Imported:
    """A Keras model, which is not changed.

    Args:
        model: built; one that is a subclass of its own and was never called needs an example.
        given: sizes for inputs with other open dimensions than the batch.
        source: file name, if it comes from one.

    Raises:
        ModelError: Keras cannot export it, or its sizes are open.
    """
    source = source or f"keras.Model '{model.name}'"
    keras = _keras(source)
    signature = _signature(keras, model, given, source)
    samples = _samples(keras, signature, given.example)
    with quoted("Keras could not run it", source, "Check that the model can be called on such inputs."):
        wanted = [_array(keras, one) for one in keras.tree.flatten(model(samples, training=False))]
    if keras.backend.backend() == BACKEND:
        proto = _exported(keras, model, signature, samples, source)
        _name(keras, proto, model, signature)
    else:
        proto = exported_on_torch(model, given.sizes, source)
    check_answers(proto, [_array(keras, one) for one in keras.tree.flatten(samples)], wanted, source)
    trained = sum(int(np.prod(weight.shape)) for weight in model.weights if weight.name not in STATISTICS)
    return Imported(proto, source, trained)


def _keras(source: str) -> Any:  # noqa: ANN401 - a module without types
    """Keras, on torch unless the process has chosen: from there it exports without TensorFlow."""
    require(("keras", "torch", "onnxscript"), EXTRA, source)
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = BACKEND
    with _nothing_kept():
        import keras

    return keras


@contextlib.contextmanager
def _nothing_kept() -> Iterator[None]:
    """Inside, importing Keras writes no settings into the user's home, nor matplotlib, which it imports, its fonts."""
    if "keras" in sys.modules:
        yield
        return
    # Both remember the folder: it is there as long as the process, which may go on with Keras, and download weights.
    folder = tempfile.mkdtemp(prefix="lowbit-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = {} if (Path.home() / ".keras" / "keras.json").exists() else {"KERAS_HOME": folder}
    given = {name: value for name, value in (kept | {"MPLCONFIGDIR": folder}).items() if name not in os.environ}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            del os.environ[name]


def _check_archive(path: Path) -> None:
    """Refuse a .keras archive that would take more memory than any model that lowbit works on."""
    try:
        if path.suffix == ".keras" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > LARGEST_BYTES:
                raise ModelError(f"unpacks to {size} bytes, the maximum is {LARGEST_BYTES}.", where=str(path))
    except ZIP_DAMAGES as error:
        raise ModelError(f"cannot be read: {first_line(error)}.", where=str(path), remedy="Copy it again.") from error


def _refusal(error: Exception, source: str) -> ModelError:
    """One sentence for what Keras says of a file in many."""
    text = str(error).lower()
    if "lambda" in text or "safe_mode" in text or "unsafe deserialization" in text:
        return ModelError(
            "holds code of its own (a Lambda layer), which lowbit does not run.",
            where=source,
            remedy=f"If you trust it: {ITSELF[0].lower()}{ITSELF[1:]}",
        )
    if "no model config" in text or "weights file" in text:
        return ModelError("holds weights only, without the network.", where=source, remedy=ITSELF)
    if "could not locate" in text or "unknown layer" in text or "register_keras_serializable" in text:
        return ModelError(f"has a layer that Keras does not know: {first_line(error)}.", where=source, remedy=ITSELF)
    return ModelError(
        f"Keras could not load it: {first_line(error)}.", where=source, remedy="Save it again with Keras 3, as .keras."
    )


def _signature(keras: Any, model: "keras.Model", given: Given, source: str) -> Any:  # noqa: ANN401 - a structure
    """The inputs, nested as the model takes them, with all sizes but the batch known; None where Keras finds them."""
    # `inputs` of a functional model is flat, and of a sequential one its only input in a list.
    inputs = getattr(model, "_inputs_struct", None)
    inputs = getattr(model, "inputs", None) if inputs is None else inputs
    if inputs is None or inputs == []:  # a subclass, which knows its inputs once it was called
        if given.example is None:
            raise ModelError(
                "a model of a class of its own needs an example input.",
                where=source,
                remedy="Call lowbit.load(model, example=numpy.zeros((1, height, width, 3), 'float32')).",
            )
        return None
    inputs = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs
    return keras.tree.map_structure(lambda one: _specification(keras, one, given, source), inputs)


def _specification(keras: Any, tensor: Any, given: Given, source: str) -> Any:  # noqa: ANN401 - Keras'
    name = tensor._keras_history.operation.name  # that of the input layer; tensors are numbered in each process
    wanted = given.sizes.get(name, given.sizes.get("", ()))
    shape = list(tensor.shape)
    if len(wanted) == len(shape):
        shape[1:] = [own if own is not None else size for own, size in zip(shape[1:], wanted[1:], strict=True)]
    if any(size is None for size in shape[1:]):
        written = "x".join("?" if size is None else str(size) for size in shape)
        example = "x".join("-" if at == 0 else str(size or 224) for at, size in enumerate(shape))
        raise ModelError(
            f"its input '{name}' is {written}, and Keras exports only sizes that are known.",
            where=source,
            remedy=f"Say the size, for example --input-size={example}.",
        )
    return keras.layers.InputSpec(shape=(None, *shape[1:]), dtype=tensor.dtype, name=name)


def _exported(
    keras: Any,  # noqa: ANN401 - a module without types
    model: "keras.Model",
    signature: Any,  # noqa: ANN401 - a structure
    samples: Any,  # noqa: ANN401 - the same
    source: str,
) -> onnx.ModelProto:
    """By Keras' own export; where that fails, by torch's newer exporter, which can take minutes.

    With an open batch Keras asks torch for its older exporter, which does not know some layers.
    """
    remedy = "Check that model.export('model.onnx', format='onnx') works, and give lowbit that file."
    signature = None if signature is None else [signature]
    with quoted("Keras could not export it", source, remedy), tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        path = Path(folder) / "model.onnx"
        import torch

        try:
            with silent():
                model.export(path, format="onnx", verbose=False, input_signature=signature)
            return onnx.load(path)
        except Exception:  # whatever it meets
            if keras.tree.is_nested(samples):
                raise
            return with_open_batch(torch, _as_module(torch, model), (samples,))


def _as_module(torch: Any, model: "keras.Model") -> Any:  # noqa: ANN401 - torch.nn.Module
    """A Keras model of one input, in inference."""

    class Inference(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:  # noqa: ANN401 - a tensor
            return self.model(x, training=False)

    return Inference().eval()


def _samples(keras: Any, signature: Any, example: object) -> Any:  # noqa: ANN401 - a structure
    """Two random samples; of integers, which may be indices, zeros and ones."""
    if signature is None:
        return keras.tree.map_structure(keras.ops.convert_to_tensor, example)
    random = np.random.default_rng(0)

    def sample(one: Any) -> Any:  # noqa: ANN401 - a tensor of the backend
        shape = (2, *one.shape[1:])
        floats = "float" in str(one.dtype)
        values = random.standard_normal(shape) if floats else random.integers(0, 2, shape)
        return keras.ops.convert_to_tensor(values.astype(str(one.dtype)))

    return keras.tree.map_structure(sample, signature)


def _array(keras: Any, tensor: Any) -> Array:  # noqa: ANN401 - a tensor of the backend
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _name(keras: Any, proto: onnx.ModelProto, model: "keras.Model", signature: Any) -> None:  # noqa: ANN401
    """Names of inputs, outputs, layers and weights as Keras has them; one symbol for the batch."""
    own = f"{model.name}/"  # of a sequential model
    name_layers(proto, ((weight.path.removeprefix(own), _array(keras, weight)) for weight in model.weights))
    inputs = [one.name for one in keras.tree.flatten(signature)] if signature is not None else []
    for values, names in ((proto.graph.input, inputs), (proto.graph.output, getattr(model, "output_names", []))):
        if len(names) == len(values):
            rename(proto, {value.name: name for value, name in zip(values, names, strict=True)})
        for value in values:
            dims = value.type.tensor_type.shape.dim
            if dims and dims[0].dim_param:
                dims[0].dim_param = "batch"

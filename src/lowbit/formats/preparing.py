"""A copy of a float model that says how images become its input, so that nobody has to say it again."""

import dataclasses
import os
from pathlib import Path

import onnx

from lowbit.errors import ModelError
from lowbit.files import read_model_file, write_atomically
from lowbit.formats.opening import is_archive, load
from lowbit.graph.external_data import load_external_data
from lowbit.graph.load import parse
from lowbit.graph.model import Model, serialize
from lowbit.graph.preprocessing import Preprocessing
from lowbit.graph.save import own_metadata, save


def prepare(model: "Model | str | os.PathLike[str] | bytes | onnx.ModelProto", preprocessing: Preprocessing) -> Model:
    """The model with a preprocessing, which `open_data` and every file made of it follow; `save` writes it.

    Args:
        model: a float model or its path.
        preprocessing: how images become its input, which stands in place of what the file says.

    Raises:
        ModelError: the model cannot be used, has several inputs, or has an input that such images do not fit.

    >>> how = lowbit.Preprocessing(16, 16, mean=(0.5,) * 3, std=(0.25,) * 3, crop=0.875)
    >>> lowbit.prepare("model.onnx", how).preprocessing.crop
    0.875
    """
    model = load(model)
    shape, wanted = model.input.shape, preprocessing.input_shape
    if len(shape) != 4 or any(
        isinstance(dim, int) and dim != side for dim, side in zip(shape[1:], wanted, strict=True)
    ):
        sizes = ", ".join("?" if dim is None else str(dim) for dim in shape)
        raise ModelError(
            f"the model's input is [{sizes}], images become {list(wanted)}.",
            where=model.source,
            remedy="Give the size, layout and channels of its input.",
        )
    return dataclasses.replace(model, preprocessing=preprocessing, preprocessing_note="")


def write_prepared(model: Model, source: Path, output: Path) -> Path:
    """Write the file that `model` was loaded from with the preprocessing and the classes of `model` in its metadata.

    An ONNX file is copied: nodes, weights and names stay, so that its outputs stay the same to the bit; weights in
    other files come into it. Any other file becomes the ONNX file that `save` writes.

    Args:
        model: with its preprocessing.
        source: path that it was loaded from.
        output: the file to write.

    Raises:
        ModelError: the file cannot be read, or holds more than 2 GB.
        OutputError: `output` cannot be written.
    """
    if source.suffix != ".onnx" or is_archive(source):
        return save(model, output)
    proto = parse(read_model_file(source), str(source))
    load_external_data(proto, source.parent, str(source))
    said = {entry.key: entry.value for entry in proto.metadata_props} | own_metadata(model)
    onnx.helper.set_model_props(proto, said)
    return write_atomically(output, serialize(proto, str(source)))

"""Write a prepared model as a plain ONNX file, whole or not at all."""

import os
from pathlib import Path

import onnx_ir as ir

from lowbit.files import write_atomically
from lowbit.graph.model import Model, serialize
from lowbit.graph.preprocessing import METADATA_KEY
from lowbit.graph.rewrites.bodies import sink_into_scans


def save(model: Model, path: "str | os.PathLike[str]") -> Path:
    """Write the prepared float graph to `path`, with the preprocessing of `model`.

    Raises:
        ModelError: more than 2 GB.
        OutputError: the folder cannot be written.
    """
    copy = model.copy()
    if model.preprocessing is not None:
        copy.metadata_props[METADATA_KEY] = model.preprocessing.to_json()
    sink_into_scans(copy)
    return write_atomically(Path(path), serialize(ir.to_proto(copy), model.source))

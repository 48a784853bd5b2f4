"""Write a prepared model as a plain ONNX file, whole or not at all."""

import json
from pathlib import Path

import onnx_ir as ir

from lowbit.files import write_atomically
from lowbit.graph.class_names import CLASSES_KEY
from lowbit.graph.model import Model, serialize
from lowbit.graph.preprocessing import METADATA_KEY
from lowbit.graph.rewrites.bodies import sink_into_scans


def save(model: Model, path: Path | str) -> Path:
    """Write the prepared float graph to `path`, with the preprocessing and the classes of `model`.

    Raises:
        ModelError: more than 2 GB.
        OutputError: the folder cannot be written.
    """
    copy = model.copy()
    copy.metadata_props.update(own_metadata(model))
    sink_into_scans(copy)
    return write_atomically(Path(path), serialize(ir.to_proto(copy), model.source))


def own_metadata(model: Model) -> dict[str, str]:
    """What a file says of a model besides its graph, as far as that is known."""
    entries = {}
    if model.preprocessing is not None:
        entries[METADATA_KEY] = model.preprocessing.to_json()
    if model.class_names:
        entries[CLASSES_KEY] = json.dumps(model.class_names)
    return entries

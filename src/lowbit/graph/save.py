"""Write a prepared model as a plain ONNX file, whole or not at all."""

from pathlib import Path

import onnx_ir as ir

from lowbit.files import write_atomically
from lowbit.graph.model import Model, serialize
from lowbit.graph.rewrites.bodies import sink_into_scans


def save(model: Model, path: Path | str) -> Path:
    """Write the prepared float graph to `path`.

    Raises:
        ModelError: more than 2 GB.
        OutputError: the folder cannot be written.
    """
    copy = model.copy()
    sink_into_scans(copy)
    return write_atomically(Path(path), serialize(ir.to_proto(copy), model.source))

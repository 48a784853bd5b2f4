"""Write a prepared model as a plain ONNX file, whole or not at all."""

import os
from pathlib import Path

from lowbit.files import write_atomically
from lowbit.graph.model import Model


def save(model: Model, path: "str | os.PathLike[str]") -> Path:
    """Write the prepared float graph to `path`.

    Raises:
        ModelError: more than 2 GB.
        OutputError: the folder cannot be written.
    """
    return write_atomically(Path(path), model.to_bytes())

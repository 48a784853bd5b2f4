"""A Keras model where Keras runs on jax or another backend than torch: exported by a process of its own.

A process has one backend, and only torch's export needs no TensorFlow. So the model is saved, and another Python, with
Keras on torch, reads that file as any other. Whoever asked compares the answers with those of the model itself.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from lowbit.errors import ModelError
from lowbit.graph.sizes import Sizes

if TYPE_CHECKING:
    import keras

MODULE = "lowbit.importing.keras_process"


def exported_on_torch(model: "keras.Model", sizes: Sizes, source: str) -> onnx.ModelProto:
    """The model as another process exports it.

    Args:
        model: that Keras can save, and load without code of the user's own.
        sizes: of its inputs, as `read_keras` takes them.
        source: for messages.

    Raises:
        ModelError: it cannot be saved, or not be read there.
    """
    import keras

    backend = keras.backend.backend()
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        saved, made = Path(folder) / "model.keras", Path(folder) / "model.onnx"
        try:
            model.save(saved)
        except Exception as error:  # whatever a layer of the user's own raises
            raise _refused(backend, "it cannot be saved", source) from error
        # The new process must find the lowbit that is running, installed or not, and nothing in the current folder.
        paths = os.pathsep.join(path for path in sys.path if path)
        done = subprocess.run(
            [sys.executable, "-P", "-m", MODULE, str(saved), str(made), json.dumps(dict(sizes))],
            env={**os.environ, "PYTHONPATH": paths, "KERAS_BACKEND": "torch"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it gave no answer"]
            raise _refused(backend, said[-1].rstrip("."), source)
        return onnx.load(made)


def _refused(backend: str, why: str, source: str) -> ModelError:
    return ModelError(
        f"Keras runs on {backend} in this process, and a process with torch, which exports, could not take it: {why}.",
        where=source,
        remedy="Set the environment variable KERAS_BACKEND=torch before keras is imported.",
    )


def main() -> None:
    """Read a saved model with Keras on torch, and write it as ONNX."""
    from lowbit.importing.imported import Given
    from lowbit.importing.keras import read_keras

    path, made, sizes = sys.argv[1:]
    known = {name: tuple(size) for name, size in json.loads(sizes).items()}
    try:
        onnx.save(read_keras(Path(path), Given(sizes=known)).proto, made)
    except ModelError as error:
        sys.exit(error.what)


if __name__ == "__main__":
    main()

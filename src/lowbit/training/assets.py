"""The trained network that lowbit ships, made by `lowbit train` on the built-in images (see assets/README.md)."""

from importlib import resources
from pathlib import Path

from lowbit.errors import ModelError


def built_in_model() -> Path:
    """Path of the study's network, trained on the built-in images: a plain float32 ONNX file.

    Raises:
        ModelError: the installation is incomplete.
    """
    path = Path(str(resources.files("lowbit") / "assets" / "mobilenet_v2.onnx"))
    if not path.is_file():
        raise ModelError("the built-in model is missing.", where=str(path), remedy="Install lowbit again.")
    return path

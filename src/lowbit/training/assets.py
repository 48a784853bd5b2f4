"""The trained networks that lowbit ships, made from what it draws itself (see assets/README.md)."""

from importlib import resources
from pathlib import Path

from lowbit.errors import ModelError


def built_in_model() -> Path:
    """Path of the study's network, trained on the built-in images: a plain float32 ONNX file.

    Raises:
        ModelError: the installation is incomplete.
    """
    return _asset("mobilenet_v2.onnx")


def built_in_detector() -> Path:
    """Path of the detector of hands, trained on `lowbit.data.hands_in_pictures`: a float32 ONNX file.

    Raises:
        ModelError: the installation is incomplete.
    """
    return _asset("hands_detector.onnx")


def _asset(name: str) -> Path:
    path = Path(str(resources.files("lowbit") / "assets" / name))
    if not path.is_file():
        raise ModelError("the built-in model is missing.", where=str(path), remedy="Install lowbit again.")
    return path

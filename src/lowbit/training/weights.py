"""Pretrained weights: the official ImageNet file, downloaded once and checked, or a file of the user's.

Files are read by torch's weights-only loader, which runs no code. The official file is known by its SHA-256, of which
its name contains the first eight hex digits (torch's own convention).
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from lowbit.data.download import download
from lowbit.errors import DataError, ModelError
from lowbit.files import sha256_file
from lowbit.progress import SILENT, Progress
from lowbit.training.mobilenet import MobileNetV2

IMAGENET_URL = "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth"
IMAGENET_SHA256 = "7ebf99e03e254b273379b23edca7ec0da9f48273b23a332b93c1c99d49e86e8f"
LARGEST_DOWNLOAD = 1 << 30


def cache_folder() -> Path:
    """The folder for downloads: `LOWBIT_CACHE`, else `lowbit` in the user's cache folder."""
    if folder := os.environ.get("LOWBIT_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lowbit"


def fetch_imagenet(*, url: str = IMAGENET_URL, folder: Path | None = None, progress: Progress = SILENT) -> Path:
    """Path of the official ImageNet weights, downloading them unless they are there already.

    Raises:
        DataError: the download failed, or the file is not the one expected.
    """
    target = (folder or cache_folder()) / url.rsplit("/", 1)[-1]
    if target.is_file() and sha256_file(target) == IMAGENET_SHA256:
        return target
    return fetch_weights(url, target, sha256=IMAGENET_SHA256, progress=progress)


def fetch_weights(url: str, target: Path, *, sha256: str, progress: Progress = SILENT) -> Path:
    """Download `url` to `target`, which appears only whole and with the expected SHA-256.

    A broken transfer leaves `<target>.part`, which the next call continues.

    Raises:
        DataError: the download failed, is too large, or has another hash.
    """
    part = target.with_name(target.name + ".part")
    remedy = "Try again, or download it by other means and give the file with --weights FILE."
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        download(url, part, limit=LARGEST_DOWNLOAD, progress=progress)
        digest = sha256_file(part)
        if digest != sha256:
            part.unlink()
            raise DataError(f"the file has SHA-256 {digest}, expected {sha256}.")
        os.replace(part, target)
    except DataError as error:
        raise DataError(error.what, where=url, remedy=remedy) from error
    except OSError as error:
        raise DataError(f"cannot write the download: {error.strerror}.", where=str(part), remedy=remedy) from error
    return target


def read_state(path: Path | str) -> dict[str, torch.Tensor]:
    """The tensors of a torch state-dict file.

    Raises:
        DataError: there is no such file, or it is not a state dict (whole pickled modules are refused).
    """
    remedy = "Give a state dict as torch.save(model.state_dict(), FILE) writes it."
    if not Path(path).is_file():
        raise DataError("there is no such file.", where=str(path), remedy=remedy)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged files, the unpickler raises all kinds of errors
        raise DataError("cannot be read as weights.", where=str(path), remedy=remedy) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError("does not hold a plain mapping of names to tensors.", where=str(path), remedy=remedy)
    return dict(state)


def load_weights(model: MobileNetV2, state: Mapping[str, torch.Tensor], *, source: str) -> bool:
    """Copy `state` into `model`, except a classifier for another number of classes.

    Returns:
        Whether the classifier was copied too.

    Raises:
        ModelError: names or shapes are not MobileNetV2's; names the first ones.
    """
    own = model.state_dict()
    head = ("classifier.1.weight", "classifier.1.bias")
    fits = all(key in state and state[key].shape == own[key].shape for key in head)
    # Counters, which old batch norms did not have, take no part in the arithmetic.
    optional = {key for key in own if key.endswith("num_batches_tracked")} | set(head)
    missing = [key for key in own if key not in state and key not in optional]
    unknown = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape and key not in head
    ]
    problems = [
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("wrong shape:", shapes))
        if names
    ]
    if problems:
        raise ModelError(
            f"these are not the weights of a MobileNetV2 of width 1: {'; '.join(problems)}.",
            where=source,
            remedy="Use torchvision's mobilenet_v2 state dict, or train with --from-scratch.",
        )
    model.load_state_dict({**own, **{key: state[key] for key in own if key in state and (fits or key not in head)}})
    return fits

"""What a file's weights are that no graph holds as constants: they are unpacked each time a runtime loads the file."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.formats.ledger import Ledger
from lowbit.formats.opening import file_weights, opened
from lowbit.graph.cost import Cost

Array = np.ndarray[Any, np.dtype[Any]]


def with_stored_weights(counted: Cost, path: Path | str, ledger: Ledger) -> Cost:
    """The cost of a model with shapes, values and parameters of weights that its file stores as codes.

    Args:
        counted: of the model that was loaded from the file.
        path: of the file, or of an archive.
        ledger: of the same file.

    Raises:
        ModelError: not a readable model file.
        EngineError: ONNX Runtime cannot compute the weights.
    """
    missing = {layer.node for layer in counted.layers if not layer.weight_shape}
    stored = {layer.node: layer.initializers for layer in ledger.layers if layer.node in missing}
    if not stored:
        return counted
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        return _filled(counted, file_weights(opened(path, Path(folder))), stored)


def _filled(counted: Cost, weights: Mapping[str, Array], stored: Mapping[str, tuple[str, ...]]) -> Cost:
    """Weights that layers share count for the first of them."""
    layers = []
    seen: set[tuple[str, ...]] = set()
    added = 0
    for layer in counted.layers:
        weight = weights.get(layer.node) if layer.node in stored else None
        if weight is not None and weight.size:
            new = stored[layer.node] not in seen
            seen.add(stored[layer.node])
            added += weight.size * new
            layer = replace(
                layer,
                weight_shape=weight.shape,
                parameters=layer.parameters + weight.size * new,
                weight_bytes=layer.weight_bytes + weight.nbytes * new,
                weight_min=float(weight.min()),
                weight_max=float(weight.max()),
            )
        layers.append(layer)
    return replace(counted, layers=tuple(layers), parameters=counted.parameters + added)

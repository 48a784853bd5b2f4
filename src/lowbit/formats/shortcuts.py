"""What is asked of a loaded model, asked of a file as well."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lowbit.formats.opening import file_ledger, is_foreign, load, opened
from lowbit.formats.stored_cost import with_stored_weights
from lowbit.graph import cost as graph_cost
from lowbit.graph import save as graph_save
from lowbit.graph.cost import Cost
from lowbit.graph.model import Model


def cost(model: Model | str | Path, *, batch: int = 1, shapes: Mapping[str, Sequence[int]] | None = None) -> Cost:
    """Count parameters and MACs, layer by layer.

    Args:
        model: a model or its path.
        batch: batch size for inputs that do not fix it.
        shapes: full input shapes by name, needed where another dimension is not fixed.

    Raises:
        ModelError: a dimension is neither fixed nor given, or a layer's shape cannot be inferred.
        EngineError: ONNX Runtime cannot compute weights that a file stores as codes.

    >>> lowbit.cost("model.onnx")
    <Cost of 7 layers: 1,549 parameters, 81,824 MACs>
    """
    loaded = load(model)
    counted = graph_cost.cost(loaded, batch=batch, shapes=shapes)
    if isinstance(model, Model) or is_foreign(model):
        return counted
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        return with_stored_weights(counted, model, file_ledger(model, opened(model, Path(folder))))


def save(model: Model | str | Path, path: Path | str) -> Path:
    """Write the prepared float graph of a model, or of a file that lowbit reads, as one ONNX file.

    Raises:
        ModelError: more than 2 GB.
        OutputError: the folder cannot be written.

    >>> lowbit.save("model.onnx", "prepared.onnx").name
    'prepared.onnx'
    """
    return graph_save.save(load(model), path)

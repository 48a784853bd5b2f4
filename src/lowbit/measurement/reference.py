"""The network behind a comparison, as its float model describes it: layers and what they cost."""

from pathlib import Path

from lowbit.data.dataset import Dataset, check_labels
from lowbit.errors import ModelError
from lowbit.formats.opening import is_litert
from lowbit.graph.cost import Cost, cost
from lowbit.graph.model import Model
from lowbit.measurement.results import LayerCostRow, ModelSummary


def check_reference(path: Path | str) -> None:
    """Refuse a LiteRT file as the first one.

    Raises:
        ModelError: it does not say how images are prepared or what layers cost.
    """
    if is_litert(path):
        raise ModelError(
            "a .tflite file cannot come first.",
            where=str(path),
            remedy="Put the ONNX file that it was made from first; it describes images and layers.",
        )


def described(model: Model, data: Dataset) -> tuple[Cost | None, ModelSummary]:
    """Costs for one sample, if they are known, and a summary of the network.

    Raises:
        DataError: labels that do not fit its classes.
    """
    if data.labels is not None and model.classes is not None:
        check_labels(data, model.classes)
    costs = _cost(model)
    return costs, _summary(model, costs, data)


def layer_costs(costs: Cost | None) -> tuple[LayerCostRow, ...]:
    """What each layer costs, in execution order; empty where that is not known."""
    return tuple(
        LayerCostRow(
            name=layer.node,
            op=layer.op,
            macs=layer.macs,
            parameters=layer.parameters,
            weight_bytes=layer.weight_bytes,
            output_shape=layer.output_shape,
        )
        for layer in (costs.layers if costs else ())
    )


def _cost(model: Model) -> Cost | None:
    try:
        return cost(model)
    except ModelError:
        # Sizes that only the data decides have no MAC count; everything else can still be measured.
        return None


def _summary(model: Model, costs: Cost | None, data: Dataset) -> ModelSummary:
    return ModelSummary(
        name=model.source,
        trained_parameters=model.trained_parameters,
        parameters=costs.parameters if costs else 0,
        macs=costs.macs if costs else 0,
        input_shape=tuple(extent if isinstance(extent, int) else 1 for extent in model.inputs[0].shape),
        classes=tuple(data.class_names or ()),
    )

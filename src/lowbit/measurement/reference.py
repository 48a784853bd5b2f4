"""The network behind a comparison, as its float model describes it: layers and what they cost."""

from lowbit.calibration.batches import samples_per_run
from lowbit.data.dataset import Dataset, check_labels
from lowbit.engines import open_session
from lowbit.errors import DataError, ModelError
from lowbit.graph.cost import Cost, cost
from lowbit.graph.model import Model
from lowbit.measurement.results import CLASSIFICATION, LayerCostRow, ModelSummary
from lowbit.measurement.tasks import embeddings
from lowbit.measurement.tasks.task import Case


def check_classes(model: Model, data: Dataset, task: object) -> None:
    """Refuse class numbers that a classifier does not have; labels of other tasks mean something else.

    Raises:
        DataError: labels that do not fit its classes.
    """
    shape = model.outputs[0].shape if model.outputs else ()
    classifies = task == CLASSIFICATION or (task is None and len(model.outputs) == 1 and len(shape) == 2)
    if not classifies or data.labels is None or model.classes is None or model.classes < 2:
        return
    try:
        check_labels(data, model.classes)
    except DataError:
        if task is not None or not _gives_unit_vectors(model, data):
            raise


def _gives_unit_vectors(model: Model, data: Dataset) -> bool:
    """Whether the first answers are those of a network that embeds, whose labels are identities."""
    batch = next(iter(data.batches(samples_per_run(model, data) or 1)))
    outputs = open_session(model.light(), threads=1).run(batch.inputs)
    return embeddings.is_obvious(Case(outputs, None, outputs))


def image_size(model: Model) -> tuple[int, int] | None:
    """Height and width of the images that a model takes, if it takes images and they are known."""
    how = model.preprocessing
    if how is not None:
        return how.height, how.width
    shape = model.inputs[0].shape if model.inputs else ()
    sides = shape[1:3] if len(shape) == 4 and shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4) else shape[2:]
    height, width = sides if len(shape) == 4 else (None, None)
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def described(model: Model, data: Dataset) -> tuple[Cost | None, ModelSummary]:
    """Costs for one sample, if they are known, and a summary of the network."""
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

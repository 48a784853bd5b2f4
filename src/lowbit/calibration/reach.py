"""The largest magnitude of activations over calibration samples; infinities are passed over.

An infinity is held by every float type; what counts is the largest number besides it, such as of scores that a mask
sets to minus infinity.
"""

from collections.abc import Sequence

from lowbit.calibration.batches import Batches, as_runs, outputs_of
from lowbit.data.dataset import Dataset
from lowbit.graph.model import Model
from lowbit.graph.summaries import REACH, with_reach_summaries
from lowbit.progress import SILENT, Progress

BATCH = 4


def measured_reach(
    model: Model, data: Dataset, tensors: Sequence[str], *, threads: int = 0, progress: Progress = SILENT
) -> dict[str, float]:
    """The largest finite magnitude of each tensor of the main graph, in its own units.

    Raises:
        DataError: too few samples for one run.
        ModelError: no tensor of that name.
    """
    data = as_runs(model, data)
    reach = dict.fromkeys(tensors, 0.0)
    batches = Batches(model, data, BATCH)
    results = outputs_of(with_reach_summaries(model, tensors), batches, threads=threads)
    for _, outputs in progress.track(results, "measuring reach", total=len(batches)):
        reach = {name: max(most, float(outputs[REACH + name])) for name, most in reach.items()}
    return reach

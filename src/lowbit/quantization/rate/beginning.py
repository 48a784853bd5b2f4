"""What stands before bits are allocated: what the network computes in, and so what its kernels ask of the codes.

In float that is the trained network alone. In integers it is what the int8 recipe makes of it with the steps that
choose scales: ranges of activations, an exact input where the network reads image bytes, and channels equalized where
that helps a lot. With 8-bit weights nearly all that is lost there is lost by activations, which stay as they are from
then on, whatever bits the weights get. Layers that read image bytes keep their 8 bits.
"""

from dataclasses import replace

from lowbit.data.dataset import Dataset
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.progress import Progress
from lowbit.quantization.passes.candidate import Candidate
from lowbit.quantization.passes.selection import Selection
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.quantization.planning.steps import BIAS, EQUALIZATION, ROUNDING
from lowbit.quantization.solving.effort import Effort

# Rows of a layer share one step, which is right for the channels that training left: only much less noise in the
# activations is worth others.
EQUALIZATION_GAIN = 0.5


def in_float(model: Model, effort: Effort) -> Candidate:
    """The trained network, whose weights alone become codes."""
    decision = plan(model, parse_recipe("linear8", per="tensor"), effort=effort.name, with_images=False)
    return Candidate(decision, model, QuantizedGraph(model), None)


def in_integers(
    model: Model, plain: Candidate, images: tuple[Dataset, Dataset], threads: int, progress: Progress
) -> Candidate:
    """The network with 8-bit activations.

    Args:
        model: the trained network.
        plain: by the int8 recipe, without any steps taken.
        images: that scales are fitted to, and that judge.
        threads: threads of the runtime; 0 leaves it to the runtime.
        progress: told as the work goes on.
    """
    selection = Selection(model, plain, *images, threads)
    for step in plain.plan.steps:
        if step not in (BIAS, ROUNDING, EQUALIZATION):
            selection.take(step, progress)
    chosen = selection.current
    if EQUALIZATION in plain.plan.steps:
        selection.take(EQUALIZATION, progress)
        result = selection.results[-1]
        if result.kept and result.after < EQUALIZATION_GAIN * result.before:
            chosen = selection.current
    # Scales and biases are stored like those of packed recipes; codes of 8 bits fill their bytes.
    packed = frozenset(layer.weight for layer in layers(model) if layer.node in chosen.graph.integer)
    return replace(chosen, graph=replace(chosen.graph, packed=packed & chosen.graph.weights.keys()))

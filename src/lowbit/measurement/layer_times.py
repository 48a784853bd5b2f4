"""How long each layer takes, by the runtime's own profiler.

Files run in turn, as for their latency, each in a session that times its kernels; of each kernel the mean of the middle
half of its times counts (the profiler knows whole microseconds only). A kernel belongs to the layer whose name it
bears, or that of its activation function, for runtimes fuse the two. All else is "other": sums, pools, what is done to
inputs and between layouts. What passes between kernels is in no figure here, but it is in the latency.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.engines import fed
from lowbit.engines.bounds import repeated
from lowbit.engines.onnxruntime import ProfiledSession, open_profiled
from lowbit.graph.edit import constant
from lowbit.graph.model import Model, Node
from lowbit.graph.weights import all_weights, node_of
from lowbit.progress import SILENT, Progress

PROFILER = "onnxruntime"  # the engine that can do this
TURNS, WARMUP = 30, 5
# What runtimes fuse into the layer before it, beside sums with a constant.
ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Elu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gelu", "PRelu", "Softplus"}
)


@dataclass(frozen=True)
class LayerTimes:
    """Microseconds of one inference, by layer, and of all other nodes."""

    layers: Mapping[str, float]
    other: float


def layer_times(
    files: Mapping[str, bytes | Path | str],
    inputs: Mapping[str, Mapping[str, NDArray[Any]]],
    model: Model,
    *,
    threads: int,
    progress: Progress = SILENT,
) -> dict[str, LayerTimes]:
    """The times of each file whose kernels bear the names of layers; by the names of `files`.

    Args:
        files: ONNX files of one network.
        inputs: of each file, what one run of it takes.
        model: the float network.
        threads: of the runtime.
        progress: told after every turn.
    """
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        sessions = {name: open_profiled(file, threads=threads, folder=Path(folder)) for name, file in files.items()}
        feeds = {name: fed(session, inputs[name]) for name, session in sessions.items()}
        order = list(sessions)
        with repeated():
            for turn in progress.track(range(WARMUP + TURNS), "timing layers", total=WARMUP + TURNS):
                for place in range(len(order)):
                    name = order[(place + turn) % len(order)]
                    sessions[name].run(feeds[name])
        owners = layers_by_name(model)
        found = {name: attributed(_per_run(session), owners) for name, session in sessions.items()}
    return {name: times for name, times in found.items() if times is not None}


def layers_by_name(model: Model) -> dict[str, str]:
    """The layer that each node belongs to (itself, or the one that it is the activation function or bias of), by the
    node's name and by that of its output: runtimes call kernels by either.
    """
    # Recurrent nodes have two weights: their time is told with the first.
    with_weights: dict[str, str] = {}
    for weight in all_weights(model):
        with_weights.setdefault(node_of(weight), weight.node)
    owners: dict[str, str] = {}
    for name, node in model.nodes.items():
        before = _only_source(node)
        if name in with_weights:
            owners[name] = with_weights[name]
        elif before is not None and str(before.name) in owners and (node.op_type in ACTIVATIONS or _adds(node)):
            owners[name] = owners[str(before.name)]
    outputs = {str(node.outputs[0].name): owners[name] for name, node in model.nodes.items() if name in owners}
    return outputs | owners


def attributed(kernels: Mapping[str, float], owners: Mapping[str, str]) -> LayerTimes | None:
    """Times of kernels as times of layers; None if half of the layers or more have no kernel that bears their name."""
    layers: dict[str, float] = {}
    other = 0.0
    for kernel, time in kernels.items():
        owner = owners.get(_known_part(kernel, owners))
        if owner is None:
            other += time
        else:
            layers[owner] = layers.get(owner, 0.0) + time
    return LayerTimes(layers, other) if 2 * len(layers) > len(set(owners.values())) else None


def _known_part(kernel: str, owners: Mapping[str, str]) -> str:
    """A kernel's name without what the runtime put behind it, such as `_nchwc` or `_token_12`."""
    name = re.sub("^fused ", "", kernel)
    while name not in owners and "_" in name:
        name = name.rpartition("_")[0]
    return name


def _per_run(session: ProfiledSession) -> dict[str, float]:
    """Of each kernel the mean of the middle half of its times for one run; those in a loop are added up."""
    times = {}
    for kernel, each in session.kernels().items():
        turns, rest = divmod(len(each), WARMUP + TURNS)
        if turns and not rest:
            sums = np.sort(np.array(each, np.float64).reshape(-1, turns).sum(axis=1)[WARMUP:])
            times[kernel] = float(sums[TURNS // 4 : TURNS - TURNS // 4].mean())
    return times


def _only_source(node: Node) -> Node | None:
    """The node whose output this one alone reads, beside constants."""
    values = [value for value in node.inputs if value is not None and constant(value) is None]
    if len(values) != 1 or len(values[0].uses()) != 1:
        return None
    return values[0].producer()


def _adds(node: Node) -> bool:
    return node.op_type == "Add"

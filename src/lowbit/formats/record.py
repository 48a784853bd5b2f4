"""The record: what a written file says of its making, so that someone else can make it again, byte for byte.

Which model and which data (SHA-256, the first 16 digits), the seed, the versions that move numbers, and the processor:
sums of floats differ in their last bits from kernel to kernel, and now and then a code with them. One entry of JSON,
without time or names of files: the same inputs on the same machine give the same bytes.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lowbit
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.processor import kernels

if TYPE_CHECKING:
    from lowbit.data.dataset import Dataset

RECORD_KEY = "lowbit.made"  # of a file's metadata
SEED = 0  # of every choice of samples (`Dataset.subset`, `Dataset.apart`); nothing else is drawn
DIGITS = 16
PACKAGES = ("numpy", "onnx", "onnxruntime")


def tools() -> dict[str, Any]:
    """What everything that is written has in common: seed, processor and versions."""
    versions = {"lowbit": lowbit.__version__, **{name: importlib.metadata.version(name) for name in PACKAGES}}
    return {"seed": SEED, "processor": kernels(), "versions": versions}


def record(
    model: Model, recipe: str = "", *, calibration: "Dataset | None" = None, evaluation: "Dataset | None" = None
) -> dict[str, str]:
    """The record as an entry of metadata.

    Args:
        model: the float model.
        recipe: name of the recipe; empty where a size or a drop took its place.
        calibration: samples that codes were fitted to; None if there were none.
        evaluation: samples that decided how many bits there are; None if there were none.
    """
    data = {"calibration": calibration, "evaluation": evaluation}
    hashes = {name: samples.fingerprint()[:DIGITS] for name, samples in data.items() if samples is not None}
    made = {"model": model.sha256[:DIGITS], **({"recipe": recipe} if recipe else {}), **hashes, **tools()}
    return {RECORD_KEY: json.dumps(made, separators=(",", ":"))}


def recorded(graph: QuantizedGraph, entry: Mapping[str, str]) -> QuantizedGraph:
    """A quantized graph whose files have the record."""
    return replace(graph, metadata={**graph.metadata, **entry})

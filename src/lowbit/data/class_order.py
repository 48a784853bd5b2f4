"""Labels by name: a model that names its classes counts them in its own order, whatever that of folders is."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lowbit.data.sources import Source
from lowbit.printable import listed


def by_name(source: Source, names: Sequence[str]) -> Source:
    """The images with labels as a model counts its classes, and a note if that changes or cannot be told.

    Args:
        source: with labels by names, which count in the order of `source.class_names`, or by numbers.
        names: the model's, in the order of its outputs; none if it does not say them.
    """
    given, labels = source.class_names, source.labels
    if not names or labels is None or given == tuple(names):
        return source
    if given is None:
        fits = not len(labels) or int(labels.max()) < len(names)
        return dataclasses.replace(source, class_names=tuple(names)) if fits else source
    number = {_plain(name): index for index, name in enumerate(names)}
    found = [number.get(_plain(name), -1) for name in given]
    if -1 in found or len(number) < len(names) or len(set(found)) < len(found):
        note = (
            f"The model calls its classes {listed(names)}, the images {listed(given)}: they are matched by their "
            "order, which may be wrong."
        )
        return dataclasses.replace(source, note=note)
    note = "" if found == list(range(len(names))) else f"Classes count in the model's order: {listed(names)}."
    return dataclasses.replace(source, labels=np.array(found)[labels], class_names=tuple(names), note=note)


def _plain(name: str) -> str:
    return name.strip().replace("_", " ").casefold()

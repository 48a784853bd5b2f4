"""What a model calls its classes: lowbit's own metadata, or what exporters write into the file or beside it.

Sources: Ultralytics `engine/exporter.py` (`names`), transformers `configuration_utils.py` (`id2label`), timm
`models/_hub.py` (`label_names`), Teachable Machine's `metadata.json` (`labels`). Untrusted, as all metadata.
"""

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowbit.graph.exporters import beside

CLASSES_KEY = "lowbit.classes"
LONGEST_TEXT = 1_000_000  # characters; 21,000 names of ImageNet take fewer
LONGEST_NAME = 200
# Names, numbered or not, as Python writes them: nothing nested, so that no parser is led astray.
LITERAL = re.compile(r"""[\[{]\s*(?:(?:\d+\s*:\s*)?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")[\s,]*)*[\]}]""")
FILES = {"config.json": ("id2label", "label_names"), "metadata.json": ("labels",)}


def class_names(metadata: Mapping[str, str], folder: Path | None, count: int | None) -> tuple[str, ...]:
    """The names in the order of the outputs; none where nobody says them, or not one for each class.

    Args:
        metadata: of the model.
        folder: that it is in; None if there is none.
        count: number of its classes, where that is known.
    """
    said: list[Any] = [_parsed(metadata.get(CLASSES_KEY, "")), _parsed(metadata.get("names", ""))]
    for file, keys in FILES.items():
        entries = beside(folder, file)[1]
        said += [entries.get(key) for key in keys]
    for names in map(_in_order, said):
        if names and count in (None, len(names)):
            return names
    return ()


def _in_order(said: object) -> tuple[str, ...]:
    """The values of a list, or of a mapping from 0, 1, ...; none if that is anything else."""
    if isinstance(said, Mapping):
        numbered = {str(key): value for key, value in said.items()}
        said = [numbered.get(str(index)) for index in range(len(numbered))]
    if not isinstance(said, list) or not all(isinstance(name, str) and 0 < len(name) <= LONGEST_NAME for name in said):
        return ()
    return tuple(said)


def _parsed(text: str) -> object:
    """A list or a mapping, as JSON or as Python writes it."""
    if not 0 < len(text) <= LONGEST_TEXT:
        return None
    try:
        return ast.literal_eval(text) if LITERAL.fullmatch(text) else json.loads(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None

"""results.json read back into the values that it was written from, every field checked against its annotation."""

import json
from pathlib import Path

from lowbit.errors import DataError
from lowbit.measurement.results import VERSION, Comparison
from lowbit.typed_json import build


def read_results(path: Path | str) -> Comparison:
    """Read a results.json; see `parse_results`.

    >>> comparison = lowbit.measure("model.onnx", "test", runs=0)
    >>> Path("results.json").write_text(comparison.to_json()) > 0
    True
    >>> lowbit.read_results("results.json") == comparison
    True
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}.", where=str(path), remedy="Name a results.json.") from error
    return parse_results(text, where=str(path))


def parse_results(text: str, *, where: str = "results.json") -> Comparison:
    """What `Comparison.to_json` wrote; unknown keys are skipped.

    Raises:
        DataError: not a results file, or one of another version.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("lowbit_results") != VERSION:
            raise ValueError(f"`lowbit_results` must be {VERSION}")
        return build(Comparison, data)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        remedy = "Write it again with `lowbit compare`."
        raise DataError(f"is not a results file of this version: {error}.", where=where, remedy=remedy) from error

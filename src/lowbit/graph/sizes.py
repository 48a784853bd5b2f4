"""Open dimensions of the inputs, such as height and width, set to what the user names."""

import re
from collections.abc import Iterable, Mapping

import onnx

from lowbit.errors import ModelError

LARGEST = 1 << 24
REMEDY = "Write NAME=1x3x224x224, with a number for each dimension, or - for one that stays open."
Sizes = Mapping[str, tuple[int | None, ...]]


def parse_sizes(texts: Iterable[str]) -> dict[str, tuple[int | None, ...]]:
    """`NAME=1x3x224x224` -> sizes by input name; `-` leaves a dimension open; without a name the only input is meant.

    Raises:
        ModelError: another form.
    """
    sizes: dict[str, tuple[int | None, ...]] = {}
    for text in texts:
        name, _, size = text.rpartition("=")
        parts = size.lower().split("x")
        if not all(re.fullmatch(r"-|[1-9]\d{0,7}", part) for part in parts):
            raise ModelError(f"--input-size '{text}' is not a size.", remedy=REMEDY)
        sizes[name] = tuple(None if part == "-" else int(part) for part in parts)
    return sizes


def set_sizes(proto: onnx.ModelProto, sizes: Sizes, source: str) -> None:
    """Give inputs of a message fixed sizes, in place.

    Args:
        proto: checked; shapes that it notes for inner tensors are dropped, since they may say otherwise.
        sizes: by input name; "" is the only input. None leaves a dimension as it is.
        source: file name, for messages.

    Raises:
        ModelError: no such input, another number of dimensions, or a dimension that is fixed at another size.
    """
    if not sizes:
        return
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = {value.name: value for value in proto.graph.input if value.name not in weights}
    for name, size in sizes.items():
        value = next(iter(inputs.values())) if not name and len(inputs) == 1 else inputs.get(name)
        if value is None:
            raise ModelError(
                f"there is no input {name!r}." if name else "it has several inputs.",
                where=source,
                remedy=f"Its inputs are {', '.join(inputs)}: write NAME=SIZE.",
            )
        dims = value.type.tensor_type.shape.dim
        written = "x".join(str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims)
        if len(dims) != len(size) or any(
            wanted is not None and dim.dim_value not in (0, -1, wanted) for dim, wanted in zip(dims, size, strict=False)
        ):
            given = "x".join("-" if extent is None else str(extent) for extent in size)
            raise ModelError(f"input {value.name!r} is {written}, not {given}.", where=source, remedy=REMEDY)
        for dim, wanted in zip(dims, size, strict=True):
            if wanted is not None:
                dim.dim_value = wanted
    del proto.graph.value_info[:]

"""A file, an ONNX message or a torch module -> `Model`; the original is never changed.

Files are untrusted: see `checks` and `external_data`. Peak memory is about twice the weights.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lowbit.errors import ModelError
from lowbit.extras import imported
from lowbit.graph.checks import check_graph, check_tensors, check_versions
from lowbit.graph.exporters import stated_preprocessing
from lowbit.graph.external_data import load_external_data
from lowbit.graph.model import LARGEST_BYTES, MEMORY, Model
from lowbit.graph.precision import noted
from lowbit.graph.prepare import prepare
from lowbit.graph.preprocessing import METADATA_KEY, Preprocessing
from lowbit.graph.sizes import Sizes, set_sizes
from lowbit.graph.versions import to_supported_opset
from lowbit.graph.weights import all_weights

if TYPE_CHECKING:
    import torch

OTHER_FORMATS = (
    (b"PK\x03\x04", 0, "a PyTorch or Keras archive"),
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 (Keras) file"),
    (b"TFL3", 4, "a LiteRT (TensorFlow Lite) file"),
    (b"\x80\x02", 0, "a Python pickle"),
)
# IR version from which a weight among the inputs is one that a caller may replace.
FIRST_WITH_CONSTANTS = 4
EXPORT = "Export the network to ONNX first, for example with torch.onnx.export or tf2onnx."


def load(
    source: "str | os.PathLike[str] | bytes | onnx.ModelProto | torch.nn.Module | Model",
    *,
    example: object | None = None,
    input_sizes: Sizes | None = None,
) -> Model:
    """Load a network and prepare it: batch norm and constants folded, shapes inferred, names unique.

    float16, bfloat16 and float64 networks are worked on in float32; files made of them have their type again
    (`Model.precision`). Opsets before 13 are converted to 13. Subgraphs (If, Loop) are kept as they are.

    Args:
        source: an ONNX file (external weights are read only from its own folder), its bytes, an `onnx.ModelProto`, a
            `torch.nn.Module`, or a `Model`, which is returned as it is.
        example: for a torch module, one input tensor, or a tuple or dict of them, with the batch as first dimension.
        input_sizes: of inputs with open dimensions, by name ("" is the only one); None leaves a dimension open.

    Raises:
        ModelError: unreadable, damaged, malicious or unsupported; says which, and what to do.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _from_proto(parse(_read(path), str(path)), str(path), path.parent, sizes=input_sizes)
    if isinstance(source, bytes):
        return _from_proto(parse(source, MEMORY), MEMORY, None, sizes=input_sizes)
    if isinstance(source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        return _from_proto(copy, MEMORY, None, sizes=input_sizes)
    return _from_torch(source, example, input_sizes)


def _from_proto(
    proto: onnx.ModelProto,
    source: str,
    folder: Path | None,
    trained_parameters: int | None = None,
    *,
    sizes: Sizes | None = None,
) -> Model:
    """Turn a message into a Model; the caller must not use it afterwards."""
    check_versions(proto, source)
    load_external_data(proto, folder, source)
    check_tensors(proto, source)
    check_graph(proto, source)
    set_sizes(proto, sizes or {}, source)
    remarks = _remarks(proto)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    own = metadata.get(METADATA_KEY)
    preprocessing = None if own is None else Preprocessing.from_json(own)
    proto = to_supported_opset(proto, source)
    try:
        graph = ir.from_proto(proto)
    except Exception as error:  # onnx_ir wraps errors, the innermost cause last
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ModelError(
            f"has an invalid part: {str(cause).splitlines()[0] if str(cause) else type(cause).__name__}.",
            where=source,
            remedy="Copy or export the model again.",
        ) from error
    del proto
    trained = prepare(graph, source, trained_parameters=trained_parameters)
    model = Model(graph, trained, preprocessing, source, remarks, noted(graph))
    if not all_weights(model):
        raise ModelError(
            "has no constant weights (of Conv, ConvTranspose, Gemm, MatMul, Einsum, Gather, LSTM, GRU, RNN).",
            where=model.source,
            remedy="It is already quantized: give the float model that it was made from."
            if model.quantized
            else "Give a trained network whose weights are constants in the file.",
        )
    if own is None and len(model.inputs) == 1 and len(model.input.shape) == 4 and model.input.dtype.kind == "f":
        stated, note = stated_preprocessing(metadata, folder, model.input.shape)
        return replace(model, preprocessing=stated, preprocessing_note=note)
    return model


def _remarks(proto: onnx.ModelProto) -> tuple[str, ...]:
    """What is wrong with a file and not with the network in it."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = sum(value.name in weights for value in proto.graph.input)
    if proto.ir_version < FIRST_WITH_CONSTANTS or not inputs:
        return ()
    return (
        f"The file lists {inputs:,} of its weights among its inputs, which keeps runtimes from folding them. "
        "Files that lowbit writes do not, so they are faster than it, the float one (-r float) too.",
    )


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ModelError("is a folder, not a file.", where=str(path), remedy="Give the .onnx file inside it.")
        if not path.exists():
            raise ModelError("there is no such file.", where=str(path), remedy="Check the path.")
        if not path.is_file():
            raise ModelError("is not a regular file.", where=str(path), remedy="Give an ONNX file.")
        if path.stat().st_size > LARGEST_BYTES:
            raise ModelError(
                f"has {path.stat().st_size} bytes, the maximum for an ONNX file is {LARGEST_BYTES}.",
                where=str(path),
                remedy="Export it with the weights as external data; networks over 2 GB are not supported.",
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {error}.", where=str(path), remedy="Check path and permissions.") from error


def read_proto(path: Path, *, external: bool = True) -> onnx.ModelProto:
    """The message in an ONNX file, as any tool wrote it.

    Args:
        path: of the file.
        external: whether weights in other files are read as well.

    Raises:
        ModelError: there is no such file, it is none, or other files that it names are missing.
    """
    proto = parse(_read(path), str(path))
    if external:
        try:
            onnx.load_external_data_for_model(proto, str(path.parent))
        except Exception as error:  # whatever the library finds wrong with paths and lengths
            raise ModelError(
                f"its weights in other files cannot be read: {error}", where=str(path), remedy="Copy these files too."
            ) from error
    return proto


def parse(data: bytes, source: str) -> onnx.ModelProto:
    """The message in the bytes of an ONNX file.

    Raises:
        ModelError: they are none: empty, cut off, or of another format, which it names.
    """
    if not data:
        raise ModelError("is empty.", where=source, remedy="Copy or export the model again.")
    for magic, offset, name in OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            raise ModelError(f"is {name}, not an ONNX file.", where=source, remedy=EXPORT)
    try:
        proto = onnx.ModelProto()
        proto.ParseFromString(data)
    except DecodeError as error:
        # An ONNX file starts with field 1, the IR version, a small number.
        is_onnx = len(data) > 2 and data[0] == 8 and data[1] < 64
        what = "is truncated or damaged." if is_onnx else "is not an ONNX file."
        remedy = "Copy or export the model again." if is_onnx else EXPORT
        raise ModelError(what, where=source, remedy=remedy) from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError("is truncated, or not an ONNX model: it has no graph.", where=source, remedy=EXPORT)
    return proto


def _from_torch(module: object, example: object | None, sizes: Sizes | None) -> Model:
    """Export in inference mode with a dynamic batch size, and restore the module's own mode afterwards."""
    try:
        import torch
    except ImportError:
        torch = None
    if torch is None or not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"cannot load a {type(module).__name__}.",
            remedy="Give a path, an onnx.ModelProto, or a torch.nn.Module with an example input.",
        )
    if example is None:
        raise ModelError(
            "a torch module needs an example input.",
            where=type(module).__name__,
            remedy="Call load(module, example=torch.zeros(1, 3, height, width)).",
        )
    imported("onnxscript", "exporting a torch module to ONNX", kind=ModelError)
    named = {str(name): _doubled(one) for name, one in example.items()} if isinstance(example, Mapping) else {}
    given = () if named else tuple(map(_doubled, example if isinstance(example, tuple) else (example,)))
    trained = sum(parameter.numel() for parameter in module.parameters())
    training = {name: part.training for name, part in module.named_modules()}
    try:
        module.eval()
        batch = torch.export.Dim.DYNAMIC
        exported = torch.onnx.export(
            module,
            given,
            kwargs=named,
            dynamo=True,
            verbose=False,
            dynamic_shapes={name: {0: batch} for name in named} if named else tuple({0: batch} for _ in given),
        )
    except Exception as error:  # whatever the exporter meets in the module's forward()
        raise ModelError(
            f"torch could not export it: {str(error).strip().splitlines()[0] if str(error) else type(error).__name__}.",
            where=type(module).__name__,
            remedy="Check that module(example) runs, or export to ONNX yourself and load the file.",
        ) from error
    finally:
        for name, part in module.named_modules():
            part.training = training.get(name, part.training)
    proto = exported.model_proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return _from_proto(copy, type(module).__name__, None, trained, sizes=sizes)


def _doubled(one: object) -> object:
    """An example of two samples: torch takes a first dimension of 1 for a constant."""
    import torch

    single = isinstance(one, torch.Tensor) and one.ndim > 0 and one.shape[0] == 1
    return torch.cat([one, one]) if isinstance(one, torch.Tensor) and single else one

"""An ONNX file or message -> `Model`; the original is never changed.

Files are untrusted: see `checks` and `external_data`. Peak memory is about twice the weights.
"""

import os
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lowbit.errors import ModelError
from lowbit.graph.checks import byte_count, check_graph, check_tensors, check_versions, tensors
from lowbit.graph.class_names import class_names
from lowbit.graph.exporters import stated_preprocessing
from lowbit.graph.external_data import load_external_data
from lowbit.graph.memory import STORED, check_memory
from lowbit.graph.model import LARGEST_BYTES, MEMORY, Model
from lowbit.graph.precision import noted
from lowbit.graph.prepare import inline_functions, lift_constants, prepare
from lowbit.graph.preprocessing import METADATA_KEY, Preprocessing
from lowbit.graph.rewrites.shape_inference import infer_shapes
from lowbit.graph.sizes import Sizes, set_sizes
from lowbit.graph.versions import to_supported_opset
from lowbit.graph.weights import all_weights

OTHER_FORMATS = (
    (b"PK\x03\x04", 0, "a PyTorch or Keras archive"),
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 (Keras) file"),
    (b"TFL3", 4, "a LiteRT (TensorFlow Lite) file"),
    (b"\x80\x02", 0, "a Python pickle"),
)
# IR version from which a weight among the inputs is one that a caller may replace.
FIRST_WITH_CONSTANTS = 4
BY_ITS_ENDING = "lowbit reads some of these (docs/importing.md), by their endings: give a path that ends in its own."
EXPORT = "Export the network to ONNX first, for example with torch.onnx.export or tf2onnx."


def load(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto | Model,
    *,
    input_sizes: Sizes | None = None,
) -> Model:
    """Load a network and prepare it: batch norm and constants folded, shapes inferred, names unique.

    float16, bfloat16 and float64 networks are worked on in float32; files made of them have their type again
    (`Model.precision`). Opsets before 13 are converted to 13. Subgraphs (If, Loop) are kept as they are.

    Args:
        source: an ONNX file (external weights are read only from its own folder), its bytes, an `onnx.ModelProto`, or a
            `Model`, which is returned as it is.
        input_sizes: of inputs with open dimensions, by name ("" is the only one); None leaves a dimension open.

    Raises:
        ModelError: unreadable, damaged, malicious or unsupported; says which, and what to do.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return from_proto(parse(_read(path), str(path)), str(path), folder=path.parent, sizes=input_sizes)
    if isinstance(source, bytes):
        return from_proto(parse(source, MEMORY), MEMORY, sizes=input_sizes)
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    return from_proto(copy, MEMORY, sizes=input_sizes)


def from_proto(
    proto: onnx.ModelProto,
    source: str,
    *,
    folder: Path | None = None,
    trained_parameters: int | None = None,
    sizes: Sizes | None = None,
) -> Model:
    """Turn a message into a Model; the caller must not use it afterwards.

    Args:
        proto: untrusted.
        source: file name, for messages.
        folder: where its external weights may lie, if it may have any.
        trained_parameters: their number, if it is known.
        sizes: of inputs with open dimensions, by name.

    Raises:
        ModelError: unreadable, damaged, malicious or unsupported.
    """
    check_versions(proto, source)
    load_external_data(proto, folder, source)
    check_tensors(proto, source)
    check_graph(proto, source)
    set_sizes(proto, sizes or {}, source)
    remarks = _remarks(proto)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    own = metadata.get(METADATA_KEY)
    preprocessing = None if own is None else Preprocessing.from_json(own)
    graph = _as_ir(to_supported_opset(proto, source), source)
    del proto
    trained = prepare(graph, source, trained_parameters=trained_parameters)
    if not sizes:  # which are the user's own then
        check_memory(graph, source)
    model = Model(graph, trained, preprocessing, source, remarks, noted(graph))
    if not all_weights(model):
        raise ModelError(
            "has no constant weights (of Conv, ConvTranspose, Gemm, MatMul, Einsum, Gather, LSTM, GRU, RNN).",
            where=model.source,
            remedy="It is already quantized: give the float model that it was made from."
            if model.quantized
            else "Give a trained network whose weights are constants in the file.",
        )
    count = model.classes if len(model.outputs) == 1 and len(model.outputs[0].shape) == 2 else None
    model = replace(model, class_names=class_names(metadata, folder, count))
    if own is None and len(model.inputs) == 1 and len(model.input.shape) == 4 and model.input.dtype.kind == "f":
        stated, note = stated_preprocessing(metadata, folder, model.input.shape)
        return replace(model, preprocessing=stated, preprocessing_note=note)
    return model


def _as_ir(proto: onnx.ModelProto, source: str) -> ir.Model:
    """A checked message as a graph that can be changed, with the bytes of its tensors noted beside it."""
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
    graph.meta[STORED] = sum(byte_count(tensor, source) for tensor in tensors(proto))
    return graph


def check_file_memory(path: Path, model: Model) -> None:
    """Refuse an ONNX file, of whoever made it, whose tensors would fill the memory where those of a model do not.

    Raises:
        ModelError: so it is, or it is no ONNX file.
    """
    proto = read_proto(path, external=False)
    graph = _as_ir(proto, str(path))
    del proto
    for rewrite in (inline_functions, lift_constants, infer_shapes):
        rewrite(graph)
    check_memory(graph, str(path), beside=model.ir)


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
            raise ModelError(f"is {name}, not an ONNX file.", where=source, remedy=BY_ITS_ENDING)
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

"""PyTorch objects: modules, exported programs and TorchScript, through torch's own exporters to ONNX.

Source: `torch.onnx.export`.
"""

import copy
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from lowbit.errors import ModelError
from lowbit.importing.imported import Given, Imported, check_answers, quoted, require

if TYPE_CHECKING:
    import torch

EXTRA = "torch"
OPSET = 18  # of TorchScript; the other exporter chooses its own


def import_module(module: "torch.nn.Module", given: Given) -> Imported:
    """Export in inference mode with a dynamic batch size, and restore the module's own mode afterwards.

    Raises:
        ModelError: no example, or torch cannot export it, or the weights do not fit.
    """
    source = type(module).__name__
    torch = needed_torch(source)
    if given.example is None:
        raise ModelError(
            "a torch module needs an example input.",
            where=source,
            remedy="Call load(module, example=torch.zeros(1, 3, height, width)).",
        )
    example = given.example
    named = {str(name): _doubled(one) for name, one in example.items()} if isinstance(example, Mapping) else {}
    inputs = () if named else tuple(map(_doubled, example if isinstance(example, tuple) else (example,)))
    remedy = "Check that module(example) runs, or export to ONNX yourself and load the file."
    trained = sum(parameter.numel() for parameter in module.parameters())
    if given.weights is not None:
        module = _with_weights(module, given.weights)
    with _evaluated(module), quoted("torch could not export it", source, remedy):
        return Imported(with_open_batch(torch, module, inputs, named), source, trained)


def import_exported_program(program: "torch.export.ExportedProgram", given: Given, source: str = "") -> Imported:
    """A program of `torch.export`: its batch is open if it was exported so.

    Raises:
        ModelError: torch cannot translate it.
    """
    source = source or type(program).__name__
    torch = needed_torch(source)
    remedy = "Check that torch.onnx.export(program, dynamo=True) works, and give lowbit the file that it writes."
    with quoted("torch could not translate it to ONNX", source, remedy), silent():
        exported = torch.onnx.export(program, dynamo=True, verbose=False)
        trained = sum(parameter.numel() for parameter in program.parameters())
        return Imported(_copied(exported), source, trained)


def import_script(module: "torch.jit.ScriptModule", given: Given, source: str = "") -> Imported:
    """A TorchScript module: it does not say what it takes, so an example or the sizes of its inputs must.

    Raises:
        ModelError: neither, or torch cannot export it.
    """
    source = source or type(module).__name__
    torch = needed_torch(source)
    names = [argument.name for argument in module.forward.schema.arguments[1:]]
    inputs = _script_inputs(torch, names, given, source)
    names = names[: len(inputs)]
    remedy = "Give lowbit the module that it was made from, or what torch.export or torch.onnx.export makes of that."
    with quoted("torch could not export it", source, remedy), _evaluated(module), silent():
        with torch.no_grad():
            outputs = module(*inputs)
        wanted = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        written = io.BytesIO()
        axes = {name: {0: "batch"} for name in names}
        settings = {"dynamo": False, "verbose": False, "opset_version": OPSET}
        torch.onnx.export(module, inputs, written, input_names=names, dynamic_axes=axes, **settings)
        proto = onnx.ModelProto.FromString(written.getvalue())
        check_answers(proto, [one.numpy() for one in inputs], [one.numpy() for one in wanted], source)
        trained = sum(parameter.numel() for parameter in module.parameters())
    return Imported(proto, source, trained)


def needed_torch(source: str) -> Any:  # noqa: ANN401 - a module without types
    """torch, with what its exporter needs.

    Raises:
        ModelError: one of them is missing.
    """
    require(("torch", "onnxscript"), EXTRA, source)
    import torch

    return torch


def with_open_batch(
    torch: Any,  # noqa: ANN401 - a module without types
    module: "torch.nn.Module",
    inputs: "tuple[torch.Tensor, ...]",
    named: "Mapping[str, torch.Tensor] | None" = None,
) -> onnx.ModelProto:
    """A module exported with all first dimensions open; inputs hold two samples, by place or by name."""
    batch = torch.export.Dim.DYNAMIC
    shapes = {name: {0: batch} for name in named} if named else tuple({0: batch} for _ in inputs)
    with silent():
        return _copied(
            torch.onnx.export(module, inputs, kwargs=named, dynamo=True, verbose=False, dynamic_shapes=shapes)
        )


@contextmanager
def silent() -> Iterator[None]:
    """Keep torch's exporters from warning and logging, and from printing the whole graph where they fail.

    They print it from C++ on standard output, where a command's JSON goes; so the file behind that is turned away.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter._registration")]
    before = [logger.level for logger in loggers]
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _script_inputs(torch: Any, names: list[str], given: Given, source: str) -> "tuple[torch.Tensor, ...]":  # noqa: ANN401
    """An example of two samples; random ones of the sizes that the caller names, where there is no example."""
    example = given.example
    if isinstance(example, Mapping):
        example = tuple(example[name] for name in names if name in example)
    if example is not None:
        return tuple(map(_doubled, example if isinstance(example, tuple) else (example,)))
    sizes = [given.sizes.get(name) or (given.sizes.get("") if len(names) == 1 else None) for name in names]
    known = [size[1:] for size in sizes if size and None not in size[1:]]
    if len(known) != len(names):
        raise ModelError(
            f"TorchScript does not say the size of its input{'s'[: len(names) != 1]} {', '.join(names)}.",
            where=source,
            remedy="Say it, for example --input-size=-x3x224x224 (- is the batch), or --input-size=NAME=SIZE for each "
            "of several; in Python, load(path, example=torch.zeros(1, 3, 224, 224)).",
        )
    random = torch.Generator().manual_seed(0)
    return tuple(torch.randn((2, *size), generator=random) for size in known)


def _with_weights(module: "torch.nn.Module", path: Path) -> "torch.nn.Module":
    """A copy of the module with the weights of a .safetensors file."""
    require(("safetensors",), EXTRA, str(path))
    if path.suffix.lower() != ".safetensors":
        raise ModelError(
            "weights come from a .safetensors file, since reading a pickle can run any code.",
            where=str(path),
            remedy="Load them yourself if you trust them: module.load_state_dict(torch.load(path, weights_only=True)).",
        )
    from safetensors.torch import load_file

    module = copy.deepcopy(module)
    with quoted("its weights do not fit the module", str(path), "Give the module that the file was saved from."):
        module.load_state_dict(load_file(path))
    return module


@contextmanager
def _evaluated(module: "torch.nn.Module") -> Iterator[None]:
    """Inference mode within; each part's own mode afterwards."""
    training = {name: part.training for name, part in module.named_modules()}
    try:
        module.eval()
        yield
    finally:
        for name, part in module.named_modules():
            if name in training and part.training != training[name]:
                part.training = training[name]


def _copied(exported: Any) -> onnx.ModelProto:  # noqa: ANN401 - torch.onnx.ONNXProgram
    proto = onnx.ModelProto()
    proto.CopyFrom(exported.model_proto)
    return proto


def _doubled(one: object) -> "torch.Tensor":
    """An example of two samples: torch takes a first dimension of 1 for a constant."""
    import torch

    tensor = torch.as_tensor(one)
    return torch.cat([tensor, tensor]) if tensor.ndim > 0 and tensor.shape[0] == 1 else tensor

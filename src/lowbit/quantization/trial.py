"""A file is run once before anyone gets it; where sizes are open, at two of them. Only inputs of gigabytes are spared.

Runtimes accept files while they open them and fail when they run: kernels that a shape does not suit, buffers that are
shared by tensors of other sizes than the file says. The float model is the control: what it does not run either is not
the file's fault.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from lowbit.data.dataset import Array
from lowbit.engines import Session, fed, installed_engines, open_session
from lowbit.errors import EngineError, ModelError
from lowbit.formats.file_form import LITERT, OPENVINO, FileForm
from lowbit.graph.model import Model, ValueInfo

# Of open dimensions behind the first. Networks with strides want multiples of 32.
SIZES = (32, 64, 96, 128, 224, 320, 512)
SAMPLES = (1, 2)
MOST_NUMBERS = 1 << 25  # of all inputs of a trial: 11 photographs of a megapixel


def check_runs(model: Model, content: bytes, form: FileForm) -> None:
    """Run a file on made-up inputs, if its engine is installed.

    Args:
        model: the float model that it was made from.
        content: of the file.
        form: how it was written.

    Raises:
        ModelError: it does not run where the float model does; the message has the runtime's reason.
    """
    engine = {LITERT: "litert", OPENVINO: "openvino"}.get(form.to or "", "onnxruntime")
    if engine not in installed_engines():
        if engine == "litert":
            return
        engine = "onnxruntime"
    session: Session | None = None
    generator = np.random.default_rng(0)
    runs = 0
    for shapes in _trials(model):
        if _are_large(shapes):
            return
        inputs = {info.name: _drawn(info, shapes[info.name], generator) for info in model.inputs}
        try:
            session = session or open_session(content, engine=engine, threads=1)
            session.run(fed(session, _as_taken(inputs, model, form)))
        except EngineError as error:
            if _float_runs(model, inputs):
                sizes = ", ".join(f"{name} {'x'.join(map(str, x.shape))}" for name, x in inputs.items())
                raise ModelError(
                    f"the quantized file does not run for {sizes}: {error.what.splitlines()[0]}",
                    where=model.source,
                    remedy="Fix open sizes with --input-size (input_sizes= in Python), or try --to openvino.",
                ) from error
        else:
            runs += 1
        if runs == len(SAMPLES) or not _is_open(model):
            return


def made_up_inputs(model: Model, samples: int) -> dict[str, Array]:
    """Random inputs of some samples; open sizes behind the first dimension are the smallest tried.

    Raises:
        ModelError: they would take gigabytes.
    """
    generator = np.random.default_rng(0)
    shapes = {info.name: _shape(info, samples, SIZES[0], model) for info in model.inputs}
    if _are_large(shapes):
        raise ModelError("has inputs too large to be made up.", where=model.source, remedy="Give smaller sizes.")
    return {info.name: _drawn(info, shapes[info.name], generator) for info in model.inputs}


def _trials(model: Model) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes of the inputs for one sample and for two, at ever larger sizes where some are open."""
    for turn, size in enumerate(SIZES):
        samples = SAMPLES[turn % len(SAMPLES)]
        yield {info.name: _shape(info, samples, size, model) for info in model.inputs}


def _shape(info: ValueInfo, samples: int, size: int, model: Model) -> tuple[int, ...]:
    shape = [dim if isinstance(dim, int) else samples if axis == 0 else size for axis, dim in enumerate(info.shape)]
    how = model.preprocessing
    if how is not None and len(model.inputs) == 1 and len(shape) == 4:
        shape[1:] = how.input_shape
    return tuple(shape)


def _are_large(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return sum(math.prod(shape) for shape in shapes.values()) > MOST_NUMBERS


def _drawn(info: ValueInfo, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    if info.dtype.kind != "f":
        return np.zeros(shape, info.dtype)  # ids of any vocabulary, dark pixels
    return generator.standard_normal(shape).astype(info.dtype)


def _is_open(model: Model) -> bool:
    return any(not isinstance(dim, int) for info in model.inputs for dim in info.shape)


def _as_taken(inputs: dict[str, Array], model: Model, form: FileForm) -> dict[str, Array]:
    """The inputs as the file wants them: image bytes instead of floats, if it takes those."""
    how = model.preprocessing
    if form.input != "uint8" or how is None:
        return inputs
    ((name, x),) = inputs.items()
    shape = how.image_shape if form.layout == "NHWC" else (how.channels, how.height, how.width)
    return {name: np.zeros((len(x), *shape), np.uint8)}


def _float_runs(model: Model, inputs: dict[str, Array]) -> bool:
    try:
        session = open_session(model.light(), threads=1)
        session.run(fed(session, inputs))
    except EngineError:
        return False
    return True

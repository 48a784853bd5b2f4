"""What quantizing gives: a plan, the integers that it led to, and the files that they can be saved as."""

from dataclasses import dataclass, replace
from pathlib import Path

from lowbit.calibration.statistics import Statistics
from lowbit.engines import ENGINES, chosen_engines
from lowbit.errors import ModelError, SchemeError
from lowbit.files import read_model_file, write_atomically
from lowbit.formats.devices import DEVICES
from lowbit.formats.file_form import LITERT, ONNX, FileForm
from lowbit.formats.input_bytes import with_byte_input
from lowbit.formats.litert.device_rules import beside as litert_beside
from lowbit.formats.litert.device_rules import violations as litert_violations
from lowbit.formats.litert.layers import takes_half_bytes
from lowbit.formats.litert.write import check_litert, to_litert
from lowbit.formats.onnx.device_rules import beside as onnx_beside
from lowbit.formats.onnx.device_rules import violations as onnx_violations
from lowbit.formats.onnx.minify import shortened
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.opening import is_litert
from lowbit.formats.quantized_graph import QuantizedGraph, float_outputs
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.printable import brief
from lowbit.quantization.passes.activations import output_codes
from lowbit.quantization.passes.steps import StepResult
from lowbit.quantization.planning.halves import type_note
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.target import kernel_lanes
from lowbit.schemes.half import HalfCodes

# From so many bytes of names on, and so large a share of a file, it is said that they can be left out.
MANY_BYTES = 8192
LARGE_SHARE = 0.25
LARGEST_SHORTENED = 1 << 24  # bytes: names do not matter in larger files


@dataclass(frozen=True)
class Quantized:
    """A quantized model: the plan that was followed and the integers it led to.

    Attributes:
        plan: what was decided, and why.
        graph: the float graph with the codes of its quantized tensors.
        steps: which steps ran, and what each brought; empty without calibration images.
        calibration: ranges of the activations; None for recipes that leave them float.
        notes: what whoever asked should know, such as images that were given and not used.

    >>> quantized = lowbit.quantize("model.onnx", "linear8", steps=())
    >>> quantized.plan.title, len(quantized.to_bytes()) < len(quantized.model.to_bytes())
    ('linear8', True)
    """

    plan: Plan
    graph: QuantizedGraph
    steps: tuple[StepResult, ...] = ()
    calibration: Statistics | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Quantized {brief(self.model.source)} as {self.plan.summary()}>"

    def _repr_html_(self) -> str:
        from lowbit.reports.notebook import quantized_html

        return quantized_html(self)

    @property
    def encoded(self) -> QuantizedGraph:
        """`graph`, by the name that it had in the first release."""
        return self.graph

    @property
    def model(self) -> Model:
        """The float model this was made from."""
        return self.graph.model

    def notes_on(self, path: Path | str) -> tuple[str, ...]:
        """`notes`, what a file of this name does not hold as planned, and what a device needs of it if it is there."""
        types = type_note(self.model, self.plan.recipe, litert=is_litert(path))
        said = [types] if types else []
        if self.plan.target in DEVICES and Path(path).exists():
            beside = litert_beside if is_litert(path) else onnx_beside
            found = beside(read_model_file(path), DEVICES[self.plan.target])
            said += [f"Target {self.plan.target}: {sentence}." for sentence in found]
        if not is_litert(path):
            return (*self.notes, *said, *_note_of_names(Path(path)))
        of_layers = {layer.weight: layer for layer in layers(self.model)}
        weights = self.graph.weights
        halves = {name for name, codes in weights.items() if isinstance(codes, HalfCodes)}
        if others := [name for name in weights if name not in of_layers.keys() | halves]:
            said.append(f"LiteRT files hold weights that belong to no layer as float: {', '.join(others)}.")
        asked = {tensor.tensor: tensor.asked for tensor in self.plan.quantized}
        narrow = [name for name in weights if name in of_layers and (scheme := asked.get(name)) and scheme.bits < 8]
        floats = float_outputs(self.graph)  # whose products read weights that were decoded
        halved = {
            name
            for name in self.graph.packed.intersection(narrow)
            if not self.graph.as_planned
            and takes_half_bytes(of_layers[name], weights[name])
            and of_layers[name].output not in floats
        }
        whole = [name for name in narrow if name not in halved]
        if whole:
            said.append(
                f"LiteRT files hold {len(whole)} of the {len(narrow)} weights of fewer than 8 bits in a byte each: "
                "only fully connected layers read 4 bits as fast."
            )
        return (*self.notes, *said)

    def to_bytes(self, form: FileForm = FileForm()) -> bytes:
        """The content of a file in this form; ONNX if the form does not say.

        Raises:
            SchemeError, OutputError, ModelError: see `save`.
        """
        form.check(self.model, integer=self.plan.integer)
        check_kind(self.plan, form)
        return self._checked(self._content(form), form)

    def bytes_for(self, engine: str) -> bytes:
        """The content of the file that an engine runs fastest.

        Raises:
            EngineError: no such engine.
            SchemeError, ModelError: see `save`.
        """
        (name,) = chosen_engines(engine)
        written = ENGINES[name].integer_file if self.plan.own_files else ENGINES[name].float_file
        return self.to_bytes(FileForm(to=written.to))

    def _content(self, form: FileForm) -> bytes:
        graph = with_byte_input(self.graph, layout=form.layout) if form.input == "uint8" else self.graph
        if form.to == LITERT:
            return self._litert(graph, form)
        content = to_onnx(graph, to=form.to or ONNX)
        return shortened(content) if form.short_names else content

    def save(self, path: Path | str, form: FileForm = FileForm(), *, to: str | None = None) -> Path:
        """Write the file, whole or not at all: LiteRT if its name ends in .tflite, else ONNX.

        Args:
            path: of the file.
            form: how it is written.
            to: the format, for a form that is the default otherwise.

        Raises:
            SchemeError: a type that the format does not have.
            OutputError: no such format, or not the one that the name of the file says; the folder is not writable, or
                the disk is full.
            ModelError: the format has no form for something in the model, or image bytes are asked for and it is not
                known how they are normalized; the message says which.
        """
        form = form if to is None else replace(form, to=to)
        return write_atomically(path, self.to_bytes(form.named(path)))

    def _checked(self, content: bytes, form: FileForm) -> bytes:
        """The content of a file, if it keeps the rules of the device that it is for."""
        if self.plan.target in DEVICES:
            rules = litert_violations if form.to == LITERT else onnx_violations
            if broken := rules(content, DEVICES[self.plan.target]):
                raise ModelError(
                    f"the file breaks {len(broken)} of the rules of {self.plan.target}: {'; '.join(broken[:3])}.",
                    where=self.model.source,
                    remedy="Choose another target, and report the network, please: this should not happen.",
                )
        return content

    def _litert(self, graph: QuantizedGraph, form: FileForm) -> bytes:
        if form.output_type != "float32" and self.calibration is not None:
            known = output_codes(self.model, self.plan, self.calibration)
            graph = replace(graph, activations=known | dict(graph.activations))
        kind = form.input if form.input == "int8" else "float32"
        lanes = kernel_lanes(self.plan.target)
        return to_litert(graph, input_type=kind, output_type=form.output_type, lanes=lanes)


def _note_of_names(path: Path) -> tuple[str, ...]:
    """A sentence if much of an ONNX file is what `--short-names` leaves out."""
    if not path.exists() or not MANY_BYTES <= path.stat().st_size <= LARGEST_SHORTENED:
        return ()
    content = read_model_file(path)
    names = len(content) - len(shortened(content))
    if names < max(MANY_BYTES, LARGE_SHARE * len(content)):
        return ()
    return (
        f"Names take {names / len(content):.0%} of the file: --short-names makes it {names / 1000:.0f} kB smaller.",
    )


def check_form(model: Model, decision: Plan, path: Path | str, form: FileForm) -> None:
    """Refuse what `Quantized.save` would of a plan, before quantizing takes its time.

    Raises:
        SchemeError, OutputError, ModelError: see `Quantized.save`.
        EngineError: a LiteRT file, and the package `ai-edge-litert` is not installed.
    """
    form = form.named(path)
    form.check(model, integer=decision.integer)
    check_kind(decision, form)
    if form.to == LITERT:
        check_for_litert(model, decision, form)


def check_kind(decision: Plan, form: FileForm) -> None:
    """Refuse a form that a device's compiler does not read, or 8-bit codes for 16-bit activations.

    Raises:
        SchemeError: the format is another, or the file cannot take or give what was asked for.
    """
    target = decision.target
    if decision.integer and decision.activations.bits == 16 and "int8" in (form.input, form.output_type):
        raise SchemeError(
            f"recipe '{decision.title}' has codes of 16 bits, so its file cannot take or give int8.",
            remedy="Leave the types float32.",
        )
    if target not in DEVICES:
        return
    wanted = DEVICES[target].files
    if (form.to or ONNX) not in wanted:
        raise SchemeError(
            f"target '{target}' takes {' or '.join(wanted)} files, not {form.to or ONNX}.",
            remedy=f"Write a {'.tflite' if LITERT in wanted else '.onnx'} file.",
        )
    if form.input == "uint8":
        raise SchemeError(
            f"files for target '{target}' take no image bytes: their compilers know no nodes that normalize.",
            remedy="Leave --input out, or give the normalized floats as codes (--input int8, .tflite only).",
        )


def check_for_litert(model: Model, decision: Plan, form: FileForm) -> None:
    """Refuse operators, weights and layouts of bytes that LiteRT files have no form for.

    Raises:
        ModelError: there is one; the message names it.
        EngineError: the package `ai-edge-litert` is not installed.
    """
    # Whether LiteRT has a form for weights and operators does not depend on how they are computed.
    tensors = decision.tensors
    graph = QuantizedGraph(model)
    graph = with_byte_input(graph, layout=form.layout) if form.input == "uint8" else graph
    check_litert(graph, {tensor.tensor: (tensor.given, tensor.axis) for tensor in tensors if tensor.given is not None})

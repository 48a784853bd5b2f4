"""What quantizing gives: a plan, the integers that it led to, and the files that they can be saved as."""

from dataclasses import dataclass, replace
from pathlib import Path

from lowbit.calibration.statistics import Statistics
from lowbit.errors import OutputError, SchemeError
from lowbit.files import write_atomically
from lowbit.formats.input_bytes import with_byte_input
from lowbit.formats.litert.write import to_litert
from lowbit.formats.onnx.minify import shortened
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.opening import is_litert
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.quantization.passes.activations import output_codes
from lowbit.quantization.passes.steps import StepResult
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe
from lowbit.quantization.planning.target import kernel_lanes

# What files are written for -> the engine whose kernels the graph is made for.
FORMS = {"onnx": "onnxruntime", "openvino": "openvino", "litert": "litert"}


@dataclass(frozen=True)
class Quantized:
    """A quantized model: the plan that was followed and the integers it led to.

    Attributes:
        plan: what was decided, and why.
        graph: the float graph with the codes of its quantized tensors.
        steps: which steps ran, and what each brought; empty without calibration images.
        calibration: ranges of the activations; None for recipes that leave them float.
    """

    plan: Plan
    graph: QuantizedGraph
    steps: tuple[StepResult, ...] = ()
    calibration: Statistics | None = None

    @property
    def model(self) -> Model:
        """The float model this was made from."""
        return self.graph.model

    def to_bytes(
        self, *, to: str = "onnx", input: str = "float32", input_layout: str = "NHWC", short_names: bool = False
    ) -> bytes:
        """The content of an ONNX file; see `save`.

        Raises:
            OutputError: `to` is no ONNX format.
        """
        check_form(self.model, self.plan.recipe, "model.onnx", to=to, input=input, input_layout=input_layout)
        content = to_onnx(self._taking(input, input_layout), engine=FORMS[to])
        return shortened(content) if short_names else content

    def save(
        self,
        path: Path | str,
        *,
        to: str | None = None,
        input: str = "float32",
        input_layout: str = "NHWC",
        output_type: str = "float32",
        short_names: bool = False,
    ) -> Path:
        """Write the file, whole or not at all: LiteRT if its name ends in .tflite, else ONNX.

        Args:
            path: where to.
            to: what for, a key of `FORMS`. "onnx": ONNX as ONNX Runtime runs it fastest. "openvino": ONNX as OpenVINO
                does; the two differ for recipes that compute in integers. "litert". By the name of the file if left
                out.
            input: what the file takes. "float32": what the model takes, normalized by the caller. "uint8": the bytes of
                images; the file normalizes them itself. "int8" (LiteRT only): codes in the scale that the file states.
            input_layout: of image bytes: "NHWC", as image libraries give them, or "NCHW" (ONNX only).
            output_type: what it gives: "float32", or "int8" or "uint8" codes in the scale that it states (LiteRT only).
            short_names: see `formats.onnx.minify`: inner tensors are renamed, and what no runtime reads is dropped
                (ONNX
                only).

        Raises:
            SchemeError: a type that the format does not have.
            OutputError: the folder is not writable, or the disk is full.
            ModelError: the format has no form for something in the model, or image bytes are asked for and it is not
                known how they are normalized; the message says which.
        """
        check_form(
            self.model, self.plan.recipe, path, to=to, input=input, input_layout=input_layout, output_type=output_type
        )
        encoded = self._taking(input, input_layout)
        if output_type != "float32" and self.calibration is not None:
            known = output_codes(self.model, self.plan, self.calibration)
            encoded = replace(encoded, activations=known | dict(encoded.activations))
        if short_names and is_litert(path):
            raise SchemeError("names in LiteRT files are short already.", remedy="Leave short names out.")
        if is_litert(path):
            kind = input if input == "int8" else "float32"
            lanes = kernel_lanes(self.plan.target)
            content = to_litert(encoded, input_type=kind, output_type=output_type, lanes=lanes)
            return write_atomically(path, content)
        content = to_onnx(encoded, engine=FORMS[to or "onnx"])
        return write_atomically(path, shortened(content) if short_names else content)

    def _taking(self, input: str, layout: str) -> QuantizedGraph:
        return with_byte_input(self.graph, layout=layout) if input == "uint8" else self.graph


def check_form(
    model: Model,
    recipe: Recipe,
    path: Path | str,
    *,
    to: str | None = None,
    input: str = "float32",
    input_layout: str = "NHWC",
    output_type: str = "float32",
) -> None:
    """Refuse what `Quantized.save` would, before quantizing takes its time.

    Raises:
        OutputError: no such format, or not the one that the name of the file says.
        SchemeError: a type that the format or the recipe does not have, or a layout of bytes where none are taken.
        ModelError: image bytes are asked for, and it is not known how they are normalized; or no such layout.
    """
    litert = is_litert(path)
    if to is not None and to not in FORMS:
        raise OutputError(f"no format is called '{to}'.", remedy=f"Choose one of: {', '.join(FORMS)}.")
    if to is not None and (to == "litert") != litert:
        raise OutputError(
            f"format {to} does not fit the name of the output.", where=str(path), remedy="LiteRT files end in .tflite."
        )
    for what, kind, known in (
        ("input", input, ("float32", "uint8", "int8") if litert else ("float32", "uint8")),
        ("output", output_type, ("float32", "uint8", "int8") if litert else ("float32",)),
    ):
        if kind not in known:
            raise SchemeError(
                f"the {what} of {'a LiteRT' if litert else 'an ONNX'} file can be {' or '.join(known)}, not '{kind}'.",
                remedy=f"Choose one of these{'' if litert else ', or write a .tflite file'}.",
            )
    if not recipe.integer and (input == "int8" or output_type != "float32"):
        raise SchemeError(
            f"recipe '{recipe.name}' computes in float, so its file has no codes to take or give.",
            remedy="Leave the types out, or use an int recipe.",
        )
    if input == "uint8":
        with_byte_input(QuantizedGraph(model), layout=input_layout)
    elif input_layout != "NHWC":
        raise SchemeError(
            f"a layout of image bytes was given, and the file takes {input}.",
            remedy="Ask for bytes with --input uint8 (input= in Python), or leave the layout out.",
        )

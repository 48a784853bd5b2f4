"""How a model is written: for which engine, what the file takes and gives, and how its tensors are named."""

from dataclasses import dataclass, replace
from pathlib import Path

from lowbit.errors import OutputError, SchemeError
from lowbit.files import check_ending
from lowbit.formats.input_bytes import with_byte_input
from lowbit.formats.opening import is_litert
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model

ONNX, OPENVINO, LITERT = "onnx", "openvino", "litert"
FORMATS = (ONNX, OPENVINO, LITERT)
ENDINGS = (".onnx", ".tflite")
ONNX_INPUTS, ONNX_OUTPUTS = ("float32", "uint8"), ("float32",)
LITERT_TYPES = ("float32", "uint8", "int8")


@dataclass(frozen=True)
class FileForm:
    """How a model is written.

    Args:
        to: what the file is written for. "onnx": ONNX as ONNX Runtime runs it fastest. "openvino": ONNX as OpenVINO
            does; the two differ for recipes that compute in integers. "litert". None: LiteRT if the name of the file
            ends in .tflite, else ONNX.
        input: what the file takes. "float32": what the model takes, normalized by the caller. "uint8": the bytes of
            images; the file normalizes them itself. "int8" (LiteRT only): codes in the scale that the file states.
        layout: of image bytes: "NHWC", as image libraries give them, or "NCHW" (ONNX only).
        output_type: what the file gives: "float32", or "int8" or "uint8" codes in the scale that it states (LiteRT
            only).
        short_names: rename inner tensors and drop what no runtime reads (ONNX only); see `formats.onnx.minify`.

    >>> quantized = lowbit.quantize("model.onnx", "linear8", steps=())
    >>> path = quantized.save("model-bytes.onnx", lowbit.FileForm(input="uint8", short_names=True))
    >>> lowbit.load("model-bytes.onnx").inputs[0].dtype.name
    'uint8'
    """

    to: str | None = None
    input: str = "float32"
    layout: str = "NHWC"
    output_type: str = "float32"
    short_names: bool = False

    def named(self, path: Path | str) -> "FileForm":
        """The same form for a file of this name, which decides `to` where that is None.

        Raises:
            OutputError: no such format, or not the one that the name says.
        """
        check_ending(path, ENDINGS)
        by_name = LITERT if is_litert(path) else ONNX
        if self.to is None:
            return replace(self, to=by_name)
        self._check_format()
        if (self.to == LITERT) != (by_name == LITERT):
            raise OutputError(
                f"format {self.to} does not match the name of the output.",
                where=str(path),
                remedy="LiteRT files end in .tflite.",
            )
        return self

    def check(self, model: Model, *, integer: bool) -> None:
        """Refuse a form that the format, the model or the arithmetic does not have.

        Args:
            model: the float model.
            integer: whether the file computes in integers.

        Raises:
            OutputError: no such format.
            SchemeError: a type that the format or the arithmetic does not have, a layout of bytes where none are taken,
                or short names for LiteRT.
            ModelError: image bytes are asked for, and it is not known how they are normalized; or no such layout.
        """
        self._check_format()
        litert = self.to == LITERT
        for what, kind, known in (
            ("input", self.input, LITERT_TYPES if litert else ONNX_INPUTS),
            ("output", self.output_type, LITERT_TYPES if litert else ONNX_OUTPUTS),
        ):
            if kind not in known:
                raise SchemeError(
                    f"the {what} of {'a LiteRT' if litert else 'an ONNX'} file can be {' or '.join(known)}, "
                    f"not '{kind}'.",
                    remedy=f"Choose one of these{'' if litert else ', or write a .tflite file'}.",
                )
        if not integer and (self.input == "int8" or self.output_type != "float32"):
            raise SchemeError(
                "a file that computes in float has no codes to take or give.",
                remedy="Leave the types out, or use an int recipe.",
            )
        if self.input == "uint8":
            with_byte_input(QuantizedGraph(model), layout=self.layout)
        elif self.layout != "NHWC":
            raise SchemeError(
                f"a layout of image bytes was given, but the file takes {self.input}.",
                remedy="Ask for bytes with --input uint8 (FileForm(input='uint8') in Python), or leave the layout out.",
            )
        if self.short_names and litert:
            raise SchemeError("names in LiteRT files are short already.", remedy="Leave short names out.")

    def _check_format(self) -> None:
        if self.to is not None and self.to not in FORMATS:
            raise OutputError(f"no format is called '{self.to}'.", remedy=f"Choose one of: {', '.join(FORMATS)}.")

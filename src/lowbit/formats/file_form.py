"""How a model is written to a file: for which engine, with which input and output types, layout and names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FileForm:
    """The form of a file.

    Attributes:
        to: what the file is written for: "onnx", "openvino" or "litert"; None: decided by the name of the file.
        input: what the file takes: "float32", "uint8" (image bytes) or "int8" (codes, LiteRT only).
        layout: of image bytes: "NHWC" or "NCHW".
        output_type: what the file gives: "float32", or "int8" or "uint8" codes (LiteRT only).
        short_names: whether inner tensors are renamed and what no runtime reads is dropped (ONNX only).
    """

    to: str | None = None
    input: str = "float32"
    layout: str = "NHWC"
    output_type: str = "float32"
    short_names: bool = False

"""A .tflite file as C source, which C and C++ compilers take, and the operators it needs as C++.

    model_data.cc       alignas(16) const unsigned char g_model_data[] = {...};   g_model_data_len
    model_data.h        both declared, and how large an arena to give the interpreter
    resolver.h          a MicroMutableOpResolver of the right size, and the calls that fill it

Microcontrollers have no files, and read the array where it lies in flash. Its address must be a multiple of 16, since
the interpreter reads weights in place.
"""

import hashlib
import re
from pathlib import Path

from lowbit import __version__
from lowbit.errors import OutputError
from lowbit.files import check_ending, write_atomically
from lowbit.formats.micro.report import Border, MicroReport

SOURCES, HEADERS = (".cc", ".cpp", ".c"), (".h", ".hpp")
BYTES_A_LINE = 16
# A tenth more than the estimate: it is one.
SPARE = 1.1
ARENA_ALIGNMENT = 16


def write_c_array(report: MicroReport, path: Path | str) -> tuple[Path, Path]:
    """Write a file's bytes as a C array, and the header that declares it.

    Args:
        report: of the file.
        path: ends in .cc, .cpp or .c; the array is called after it, `g_model_data` for model_data.cc.

    Returns:
        The source file and the header beside it.

    Raises:
        OutputError: another ending, or not writable.
    """
    check_ending(path, SOURCES)
    path = Path(path)
    header = path.with_suffix(".h")
    name = array_name(path)
    return (
        write_atomically(path, c_source(report, name, header.name)),
        write_atomically(header, c_header(report, name, header)),
    )


def write_resolver(report: MicroReport, path: Path | str) -> Path:
    """Write the operators that a file needs as a C++ header for TensorFlow Lite Micro.

    Args:
        report: of the file.
        path: ends in .h or .hpp; the namespace is called after it, `resolver_ops` for resolver.h.

    Raises:
        OutputError: another ending, or not writable.
    """
    check_ending(path, HEADERS)
    return write_atomically(path, resolver_source(report, Path(path)))


def array_name(path: Path) -> str:
    """What the array in a file is called."""
    return f"g_{_word(path)}"


def c_source(report: MicroReport, name: str, header: str) -> str:
    """The array's definition."""
    content = report.content
    lines = (
        "    0x" + content[start : start + BYTES_A_LINE].hex(",").replace(",", ",0x") + ","
        for start in range(0, len(content), BYTES_A_LINE)
    )
    return "\n".join(
        (
            _origin(report),
            f'#include "{header}"',
            "",
            "#ifdef __cplusplus",
            "#define ALIGNED_MODEL alignas(16)",
            "#else",
            "#define ALIGNED_MODEL _Alignas(16)",
            "#endif",
            "",
            f"ALIGNED_MODEL const unsigned char {name}[] = {{",
            *lines,
            "};",
            f"const unsigned int {name}_len = {len(content)};",
            "",
        )
    )


def c_header(report: MicroReport, name: str, path: Path) -> str:
    """The array's declaration, and the arena that it needs."""
    guard = f"{_word(path).upper()}_H_"
    arena = -(-int(SPARE * report.arena.bytes) // ARENA_ALIGNMENT) * ARENA_ALIGNMENT
    borders = [
        f" * {kind} {place}: {_described(border)}"
        for kind, each in (("Input", report.inputs), ("Output", report.outputs))
        for place, border in enumerate(each)
    ]
    return "\n".join(
        (
            _origin(report),
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "/*",
            *borders,
            " */",
            "",
            f"/* RAM for the interpreter: {report.arena.bytes} bytes are estimated, and a tenth more is given.",
            "   Lower it to what arena_used_bytes() says on your board. */",
            f"#define {name.upper()}_ARENA_BYTES {arena}",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            f"extern const unsigned char {name}[];",
            f"extern const unsigned int {name}_len;",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            f"#endif  /* {guard} */",
            "",
        )
    )


def resolver_source(report: MicroReport, path: Path) -> str:
    """A resolver of the right size, and a function that adds each operator once."""
    known = [operator for operator in report.operators if operator.method]
    lost = [operator for operator in report.operators if not operator.method]
    guard = f"{_word(path).upper()}_OPS_H_"
    return "\n".join(
        (
            _origin(report),
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"',
            "",
            f"namespace {_word(path)}_ops {{",
            "",
            f"using OpResolver = tflite::MicroMutableOpResolver<{max(1, len(known))}>;",
            "",
            "inline TfLiteStatus RegisterOps(OpResolver& resolver) {",
            *(f"  TF_LITE_ENSURE_STATUS(resolver.{operator.method}());" for operator in known),
            *(f"  /* TensorFlow Lite Micro has no kernel for {_plain(operator.name)}. */" for operator in lost),
            "  return kTfLiteOk;",
            "}",
            "",
            f"}}  // namespace {_word(path)}_ops",
            "",
            f"#endif  // {guard}",
            "",
        )
    )


def _origin(report: MicroReport) -> str:
    digest = hashlib.sha256(report.content).hexdigest()
    return f"/* Made by lowbit {__version__} from {_plain(Path(report.source).name)}, SHA-256 {digest}. */"


def _described(border: Border) -> str:
    shape = " x ".join(map(str, border.shape))
    shift = f"{'+' if border.zero_point < 0 else '-'} {abs(border.zero_point)}"
    codes = "" if border.scale is None else f", value = {border.scale:.9g} * (code {shift})"
    return f"{_plain(border.name)}, {border.dtype} [{shape}]{codes}"


def _word(path: Path) -> str:
    """The name of a file without its ending as an identifier of C."""
    word = re.sub(r"[^A-Za-z0-9]", "_", path.stem)
    return f"n{word}" if not word or word[0].isdigit() else word


def _plain(name: str) -> str:
    """A name that ends no comment."""
    return re.sub(r"[^\w.:+-]", "_", name, flags=re.ASCII)[:80]


def check_outputs(c_array: Path | None, resolver: Path | None) -> None:
    """Refuse names before anything is written.

    Raises:
        OutputError: an ending that says something else, or a resolver where the array's header goes.
    """
    if c_array is not None:
        check_ending(c_array, SOURCES)
    if resolver is not None:
        check_ending(resolver, HEADERS)
    if c_array is not None and resolver is not None and c_array.with_suffix(".h").resolve() == resolver.resolve():
        raise OutputError(
            "is the header of the array too.", where=str(resolver), remedy="Choose another name for the resolver."
        )

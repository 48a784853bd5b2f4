"""Options as values: a command takes frozen dataclasses of options, and typer sees their fields one by one.

    @dataclass(frozen=True)
    class DataOptions:
        data: Annotated[str | None, typer.Option(help="Evaluation images.")] = None
        limit: Annotated[int | None, typer.Option(help="Maximum number of images.")] = None

    def measure(files: ..., images: DataOptions) -> None: ...

`flat(measure)` takes `files`, `data` and `limit`, and calls `measure` with a `DataOptions`. So options that belong
together are written once, whatever number of commands take them. Typer has no such grouping of its own.
"""

import functools
import importlib
import inspect
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperOption

from lowbit.files import check_apart, check_has_end, check_writable

# Parameters that name what is written: a file, or a folder where the metavar is DIR.
OUTPUTS = ("output", "out", "c_array", "resolver", "report")
FOLDER = "DIR"
# What stands behind an option in a help text, by the type of its value.
METAVARS = {"int": "N", "float": "X", "Path": "PATH"}
# In a help text: the rows of a table, as {module:NAME}.
TABLE = re.compile(r"\{([\w.]+):(\w+)\}")


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its option groups as parameters of their own, all of them keyword-only."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            parameters += _fields_of(parameter.annotation)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def flattened(**given: Any) -> None:  # noqa: ANN401 - whatever the options hold
        values = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **values)

    flattened.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flattened.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flattened


def _fields_of(group: Any) -> list[inspect.Parameter]:  # noqa: ANN401 - a dataclass
    hints = typing.get_type_hints(group, include_extras=True)
    own = inspect.get_annotations(group)  # before those of the group that it extends
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in sorted(fields(group), key=lambda field: field.name not in own)
    ]


class Command(TyperCommand):
    """A command that writes over nothing that it reads, and knows before the work that it can write.

    Its help texts may name tables, which are only imported when this command's help is shown.
    """

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer brings a click of its own
        """Refuse devices, pipes, and an output that is one of the inputs; then run.

        Raises:
            DataError: an input is a device or a pipe, which may have no end.
            OutputError: an output is one, or is what is read, or a file that cannot be written.
        """
        outputs = {name: ctx.params[name] for name in OUTPUTS if ctx.params.get(name) is not None}
        read = list(_read_files(ctx.params, with_weights=any(map(os.path.exists, outputs.values()))))
        for path in read:
            check_has_end(path)
        folders = {parameter.name for parameter in self.params if getattr(parameter, "metavar", None) == FOLDER}
        for name, output in outputs.items():
            check_apart(output, read)
            if name not in folders:
                check_writable(output)
        return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer brings a click of its own
        """Put the rows of the tables into the texts, and short words in place of Python's types; then show them."""
        for parameter in self.params:
            text = getattr(parameter, "help", None)
            if text:
                parameter.help = TABLE.sub(_rows, text)  # type: ignore[attr-defined]
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
            elif isinstance(parameter, TyperOption) and not parameter.is_flag and parameter.metavar is None:
                parameter.metavar = METAVARS.get(parameter.bare_type(), "WORD")
        super().format_help(ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer brings a click of its own
        """What follows the name of the command, without braces."""
        return [piece.strip("{}").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


def _read_files(params: Mapping[str, Any], *, with_weights: bool) -> Iterator[Path]:
    """Every path among the parameters but outputs; with weights also the files beside a model that hold them."""
    for name, value in params.items():
        for one in value if isinstance(value, list | tuple) else (value,):
            if name in OUTPUTS or not isinstance(one, str | Path):
                continue
            yield Path(one)
            if with_weights and Path(one).suffix == ".onnx":
                from lowbit.graph.external_data import external_files

                yield from external_files(Path(one))


def _rows(match: re.Match[str]) -> str:
    return ", ".join(getattr(importlib.import_module(match[1]), match[2]))

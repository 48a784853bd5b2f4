"""Groups of options: what typer sees of them, and what the command gets."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from lowbit import cli
from lowbit.calibration.ranges import RANGE_RULES
from lowbit.commands.groups import Command, flat


@dataclass(frozen=True)
class Point:
    x: Annotated[int, typer.Option("--across", help="Of the point.")]
    y: Annotated[int, typer.Option(help="One of {lowbit.calibration.ranges:RANGE_RULES}.", min=0)] = 7


def run(*words):
    given = []

    def place(name: str, point: Point, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        """Place a point."""
        given.append((name, point, loud))

    app = typer.Typer()
    app.command(cls=Command)(flat(place))
    return CliRunner().invoke(app, words), given


def test_a_command_gets_the_group_as_a_value():
    result, given = run("a", "--across", "3", "--loud")
    assert result.exit_code == 0
    assert given == [("a", Point(3, 7), True)]
    assert run("b", "--across", "3", "--y", "1")[1] == [("b", Point(3, 1), False)]


@pytest.mark.parametrize("words", [("a",), ("a", "--across", "x"), ("a", "--across", "1", "--y", "-1")])
def test_fields_are_checked_like_other_options(words):
    result, given = run(*words)
    assert result.exit_code == 2
    assert not given


def test_help_lists_the_rows_of_a_table():
    text = " ".join(run("--help")[0].output.replace("│", " ").split())
    assert "Place a point." in text
    assert f"One of {', '.join(RANGE_RULES)}." in text


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.__name__)
def test_help_of_every_command(command):
    result = CliRunner().invoke(cli.app, [command.__name__, "--help"])
    assert result.exit_code == 0
    assert "{lowbit" not in result.output
    assert len(inspect.signature(command).parameters) <= 8


def test_one_word_for_the_size_of_images():
    options = {name: set(inspect.signature(flat(command)).parameters) for name, command in commands().items()}
    assert {name for name, names in options.items() if "image_size" in names} == {
        "quantize",
        "measure",
        "compare",
        "diagnose",
        "search",
        "pack",
        "prepare",
        "train",
    }
    assert {name for name, names in options.items() if "size" in names} == {"pack"}


def commands():
    return {command.__name__: command for command in cli.COMMANDS}

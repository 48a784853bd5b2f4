"""What no command does: wait for a pipe, read a device without end, send anything, or write elsewhere."""

import os
import shutil
import signal

import pytest
import typer

from every_command import LINES, REFUSED, small_files, traced, words_of
from lowbit import cli
from test_cli import run

pytestmark = pytest.mark.usefixtures("quick_measuring")

GROUP = typer.main.get_command(cli.app)
TEXTS = ("str", "Path", "list[str]", "list[Path]")
PATIENCE = 60  # seconds for all options of a command; each is refused before the work


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    pytest.importorskip("ai_edge_litert")
    return small_files(tmp_path_factory.mktemp("files"))


def test_no_command_is_forgotten():
    assert set(LINES) == {command.__name__ for command in cli.COMMANDS} == set(GROUP.commands)


def with_value(command, parameter, value, words):
    """The words of a line, with another value for a parameter of its command."""
    options = [option for option in parameter.opts if option.startswith("-")]
    if options:
        at = next((index for index, word in enumerate(words) if word in options), None)
        rest = words if at is None else words[:at] + words[at + 2 :]
        return [*rest, options[0], value]
    arguments = [each.name for each in command.params if not each.opts[0].startswith("-")]
    at = 1 + arguments.index(parameter.name)
    return [*words[:at], value, *words[at + 1 :]]


def values_of(parameter, pipe):
    """Pipes as the values of a parameter, as its own text says it takes files."""
    yield pipe
    if "NAME=" in (parameter.metavar or ""):
        yield f"x={pipe}"


@pytest.mark.parametrize("name", LINES)
def test_no_option_waits_for_a_pipe(name, files, tmp_path, capsys):
    """Of all that takes a text, since each may be a path some day."""
    pipe, out = tmp_path / "pipe.npy", tmp_path / "out"
    os.mkfifo(pipe)
    command = GROUP.commands[name]
    assert command.params
    words = words_of(LINES[name][0], files, out)
    given = [(parameter, value) for parameter in command.params if parameter.bare_type() in TEXTS
             for value in values_of(parameter, str(pipe))]  # fmt: skip
    for parameter, value in given:
        signal.alarm(PATIENCE)
        code, _, error = run(*with_value(command, parameter, value, words), capsys=capsys)
        signal.alarm(0)
        assert (code, error.count("Error: ")) == (2, 1), (parameter.name, value, error)
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.npy"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_command_opens_a_connection_or_writes_elsewhere(files, tmp_path):
    out = tmp_path / "out"
    lines = [words_of(line, files, out) for name in LINES for line in LINES[name]]
    ended, written = traced(lines, tmp_path)
    assert ended == [[words[0], "2" if words[0] in REFUSED else "0"] for words in lines]
    assert any(path.startswith(str(out)) for path in written)

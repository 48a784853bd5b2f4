"""What no command does: wait for a pipe, read a device without end, send anything, or write elsewhere."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import typer

from every_command import LINES, REFUSED, small_files, words_of
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


TRACED = (
    "connect,socket,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mknod,mknodat"
)
CALL = re.compile(r'(?:\d+ +)?(\w+)\((?:AT_FDCWD, )?"?([^",]*)')
WRITES = re.compile("O_WRONLY|O_RDWR|O_CREAT|^(?:creat|mkdir|mkdirat|rename\\w*|link\\w*|symlink\\w*|mknod\\w*)$")
ELSEWHERE = ("/dev/null", "/proc/self/clear_refs", "/dev/shm/")  # the last: locks of the pools that work in parallel
ALL_LINES = """
import json, os, sys
from lowbit import cli
for number, words in enumerate(json.loads(sys.argv[1])):
    sys.argv = ["lowbit", *words]
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    print(words[0], code)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_command_opens_a_connection_or_writes_elsewhere(files, tmp_path):
    home, temporary, out, trace = (tmp_path / name for name in ("home", "temporary", "out", "trace"))
    for folder in (home, temporary, out):
        folder.mkdir()
    lines = [words_of(line, files, out) for name in LINES for line in LINES[name]]
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    own = {"HOME": home, "XDG_CACHE_HOME": home / "cache", "TMPDIR": temporary, "PYTHONDONTWRITEBYTECODE": 1}
    tracer = ["strace", "-f", "-qq", "-e", f"trace={TRACED}", "-o", trace]
    done = subprocess.run(
        [*tracer, sys.executable, "-c", ALL_LINES, json.dumps(lines)],
        env=kept | {name: str(value) for name, value in own.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    ended = [line.split() for line in done.stdout.splitlines() if re.fullmatch(rf"({'|'.join(LINES)}) \d+", line)]
    assert ended == [[words[0], "2" if words[0] in REFUSED else "0"] for words in lines], done.stderr
    calls = trace.read_text(errors="replace").splitlines()
    assert any("openat(" in line for line in calls)
    assert [line for line in calls if "AF_INET" in line or "sin_port" in line] == []
    written = set()
    for line in calls:
        call = CALL.match(line)
        if call and (WRITES.search(call[1]) or (call[1] == "openat" and re.search(r"O_(WRONLY|RDWR|CREAT)\b", line))):
            written.add(call[2])
    allowed = (str(out), str(temporary), *ELSEWHERE)
    assert {path for path in written if not path.startswith(allowed)} == set()
    assert any(path.startswith(str(out)) for path in written)
    assert [path for folder in (home, temporary) for path in folder.rglob("*") if path.is_file()] == []
    assert [path.name for path in out.rglob(".lowbit-*")] == []

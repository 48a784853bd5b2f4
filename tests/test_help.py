"""What a new user types first: help, the version, completion, fewer words."""

import re
import subprocess
import sys

import pytest

import lowbit
from lowbit.cli import COMMANDS


def run(*words, **environment):
    command = [sys.executable, "-m", "lowbit", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**environment, "PATH": "/usr/bin"})


def test_the_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"lowbit {lowbit.__version__}\n")


@pytest.mark.parametrize("words", [("-h",), ("--help",), ("quantize", "-h")])
def test_help_fits_into_80_columns_and_names_every_command_whole(words):
    done = run(*words, COLUMNS="80")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "..." not in done.stdout.replace("[ARGS]...", "")
    if len(words) == 1:
        assert all(f"\n  {command.__name__} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("shell", "asked"),
    [
        ("bash", {"COMP_WORDS": "lowbit qua", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "lowbit qua"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "lowbit qua", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_words_are_completed(shell, asked):
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['lowbit']; from lowbit.cli import main; main()"],
        capture_output=True, text=True, timeout=60,
        env={"PATH": "/usr/bin", "_LOWBIT_COMPLETE": f"complete_{shell}", **asked},
    )  # fmt: skip
    assert re.findall(r"^\W*(?:_arguments.*\(\()?\W*([a-z]+)", done.stdout) == ["quantize"], done.stdout + done.stderr

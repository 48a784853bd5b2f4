"""Functions that fit on a screen and take what a reader can hold in mind: the limits as a test."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lowbit

SOURCE = Path(lowbit.__file__).parent
MOST_LINES = 60
MOST_PUBLIC_PARAMETERS = 8
MOST_INNER_PARAMETERS = 6


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def violations(text: str, public: set[str]) -> list[str]:
    """What is too long or takes too much, with its line."""
    problems = []
    for node in functions(ast.parse(text)):
        _, _, example = (ast.get_docstring(node) or "").partition(">>>")
        lines = (node.end_lineno or node.lineno) - node.lineno + 1 - len(example.splitlines())
        given = node.args
        names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        count = len([name for name in names if name not in ("self", "cls")]) + sum(
            map(bool, (given.vararg, given.kwarg))
        )
        most = MOST_PUBLIC_PARAMETERS if node.name in public else MOST_INNER_PARAMETERS
        if lines > MOST_LINES:
            problems.append(f"{node.lineno}: {node.name} has {lines} lines, at most {MOST_LINES}")
        if count > most:
            problems.append(f"{node.lineno}: {node.name} takes {count} parameters, at most {most}")
    return problems


def public_names(relative: str) -> set[str]:
    """Functions that users call: what `lowbit` exports from the module, and every command."""
    module = "lowbit." + relative.removesuffix(".py").replace("/", ".")
    if relative.startswith("commands/"):
        text = (SOURCE / relative).read_text(encoding="utf-8")
        return {node.name for node in functions(ast.parse(text)) if not node.name.startswith("_")}
    return {name for name, where in lowbit.PUBLIC.items() if where == module}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_functions_are_short_and_take_few_parameters(path):
    relative = path.relative_to(SOURCE).as_posix()
    assert violations(path.read_text(encoding="utf-8"), public_names(relative)) == []


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n" + "    pass\n" * 60,
        "def f(a, b, c, d, /, e, *, g, h): ...",
        "class C:\n    def f(self, a, b, c, d, e, g, *rest): ...",
    ],
)
def test_the_rule_notices(text):
    assert len(violations(text, set())) == 1

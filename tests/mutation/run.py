"""Break the code in one place at a time and see whether its tests notice: what share of mutants is killed.

    python tests/mutation/run.py --count 20 --seed 0

A mutant is a random change of one place of `AREAS`: another comparison or arithmetic operator, another constant, a
negated condition, a statement left out, None returned. It lives in a copy of the folder of sources, and the tests of
the same folder under tests/ run on it until the first one fails. A mutant that survives is a hole in the tests, or a
change that makes no difference (a message, a bound never met): read the list that is printed.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Folders of sources, and the tests that should notice.
AREAS = {
    "quantization/solving": ("quantization/solving", "quantization/passes", "quantization/test_quantize.py"),
    "quantization/planning": ("quantization/planning", "quantization/passes/test_bias_correction.py", "formats"),
    "formats": ("formats", "engines"),
}
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
KILLED, SURVIVED, TIMED_OUT = "killed", "SURVIVED", "timed out"


def changes(node: ast.AST) -> list[str]:
    """The kinds of change that a node allows."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        return ["comparison"]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return ["operator"]
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        return ["constant"]
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        return ["negated condition"]
    if isinstance(node, ast.Return) and node.value is not None:
        return ["None returned"]
    if isinstance(node, ast.AugAssign | ast.Expr) and not isinstance(getattr(node, "value", None), ast.Constant):
        return ["statement left out"]
    return []


def mutable(tree: ast.Module) -> Iterator[int]:
    """Places in `ast.walk` that allow a change: none in annotations, decorators and what raises errors."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        parts = [node] if isinstance(node, ast.Raise) else []
        parts += [part for name in ("annotation", "returns") if (part := getattr(node, name, None)) is not None]
        parts += getattr(node, "decorator_list", [])
        skipped |= {id(inner) for part in parts for inner in ast.walk(part)}
    return (at for at, node in enumerate(ast.walk(tree)) if id(node) not in skipped and changes(node))


def mutate(node: ast.AST, rng: random.Random) -> str:
    """Change a node where it is; what was done, in words."""
    (kind,) = changes(node)
    before = ast.unparse(node)
    if isinstance(node, ast.Compare):
        node.ops[0] = COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp):
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Constant):
        value = node.value
        node.value = not value if isinstance(value, bool) else rng.choice([value + 1, value * 2 if value else -1])
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        before = ast.unparse(node.test)
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return f"{kind}: {before}"
    elif isinstance(node, ast.Return):
        node.value = ast.Constant(None)
    else:
        # A statement has no parent here: an empty one takes its place.
        node.__class__, node.__dict__ = ast.Pass, {k: v for k, v in vars(node).items() if "line" in k or "col" in k}
    return f"{kind}: {before} -> {ast.unparse(node)}"


def draw(count: int, seed: int) -> Iterator[tuple[str, Path, str, str]]:
    """So many mutants: (area, file, what was changed, its text), every place as likely as any other."""
    rng = random.Random(seed)
    places = []
    for area in AREAS:
        for path in sorted((ROOT / "src/lowbit" / area).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            places += [(area, path, tree, at) for at in mutable(tree)]
    for area, path, tree, at in rng.sample(places, min(count, len(places))):
        changed = copy.deepcopy(tree)
        node = list(ast.walk(changed))[at]
        line = getattr(node, "lineno", 0)
        what = mutate(node, rng)
        yield area, path, f"{path.relative_to(ROOT / 'src/lowbit')}:{line} {what}", ast.unparse(changed)


def attempt(area: str, path: Path, text: str, sources: Path, timeout: float) -> str:
    """Run the tests of an area on a copy of the sources in which one file has this text."""
    mutant = sources / path.relative_to(ROOT / "src")
    original = mutant.read_text(encoding="utf-8")
    mutant.write_text(text, encoding="utf-8")
    tests = [str(ROOT / "tests" / name) for name in AREAS[area]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return TIMED_OUT
    finally:
        mutant.write_text(original, encoding="utf-8")
    return KILLED if done.returncode else SURVIVED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for the tests of one mutant")
    options = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        sources = Path(shutil.copytree(ROOT / "src", Path(folder) / "src"))
        for area, path, what, text in draw(options.count, options.seed):
            outcomes.append(attempt(area, path, text, sources, options.timeout))
            print(f"{outcomes[-1]:9} {what}", flush=True)
    killed = len(outcomes) - outcomes.count(SURVIVED)  # an endless loop is noticed too
    print(f"{killed} of {len(outcomes)} mutants killed: {killed / max(1, len(outcomes)):.0%}")


if __name__ == "__main__":
    main()

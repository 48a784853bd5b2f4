"""Run a notebook's code cells in order and keep what they print and show in it, without Jupyter.

    python notebooks/run.py notebooks/detector.ipynb

What a cell shows is the value of its last line: pictures as PNG, everything else as text.
"""

import ast
import base64
import contextlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image


def run(notebook: dict[str, Any], parameters: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Run all code cells in one namespace, replace their outputs, and return the namespace.

    Args:
        notebook: in Jupyter's format 4; cells change in place.
        parameters: values set behind the cell with the tag "parameters".
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(codes, 1):
        cell["execution_count"], cell["outputs"] = number, _outputs("".join(cell["source"]), number, namespace)
        if "parameters" in cell["metadata"].get("tags", ()):
            namespace |= parameters or {}
    return namespace


def _outputs(source: str, number: int, namespace: dict[str, Any]) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, shown = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), namespace)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)
    outputs = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if shown is not None:
        result = {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": _data(shown)}
        outputs.append(result)
    return outputs


def _data(shown: object) -> dict[str, Any]:
    if not isinstance(shown, Image.Image):
        return {"text/plain": repr(shown).splitlines(keepends=True)}
    png = io.BytesIO()
    shown.quantize(64).save(png, "png", optimize=True)
    text = f"<picture of {shown.width} x {shown.height}>"
    return {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": [text]}


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        run(notebook)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Every example of README, first steps and tutorials, in order, as a newcomer runs them: by the installed command.

    python tests/newcomer.py [PAGE ...]

The folder is a new one, with an ordinary ONNX file in it and nothing else than images. Ends with the worst exit code.
"""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from page_examples import FRAMEWORKS, commands, make_workplace, pages

COMMAND = Path(sys.executable).with_name("lowbit")
FIRST = ("README.md", "docs/get-started.md")


def main() -> int:
    """Run them."""
    found = pages()
    chosen = sys.argv[1:] or [*FIRST, *(page for page in found if page.startswith("docs/tutorials/"))]
    with tempfile.TemporaryDirectory() as folder:
        make_workplace(Path(folder))
        os.chdir(folder)
        if "README.md" not in chosen:  # its first command makes the file that other pages speak of
            subprocess.run([COMMAND, *commands(found["README.md"][0])[0][1:]], check=True)
        return max(run_page(page, found) for page in chosen)


def run_page(page, found) -> int:
    """The worst exit code of a page."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    worst = 0
    for example in found[page]:
        there = example.mark in FRAMEWORKS and find_spec(example.mark) is not None
        if example.mark and not there:
            print(f"--- {page}:{example.line} {example.mark.removeprefix('not run: ')}: not run", flush=True)
        elif example.language == "python":
            print(f"--- {page}:{example.line}\n{example.text}", flush=True)
            exec(compile(example.text, page, "exec"), namespace)
        else:
            for words in commands(example):
                print("$", *words, flush=True)
                code = subprocess.run([COMMAND, *words[1:]], check=False).returncode
                worst = max(worst, code)
                print(f"    exit code {code}", flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main())

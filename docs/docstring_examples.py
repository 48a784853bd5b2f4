"""For the page of the Python API: lines of `>>>` in a docstring are an example, also where no heading says so."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Puts such lines under the heading that the docstrings' style asks for."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:  # noqa: ANN401 - what griffe passes beside it
        """Change the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(_under_heading, obj.docstring.value)


def _under_heading(block: re.Match[str]) -> str:
    return "Examples:\n" + "\n".join(f"    {line}" for line in block[0].splitlines())

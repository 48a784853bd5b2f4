"""Progress of long work: a protocol with two methods, and what public functions show where nobody says otherwise.

Functions take `progress: Progress` and never print themselves. The command line passes a bar with the time left. Public
functions show a bar of their own in a terminal and in a notebook, from two seconds on; pipes and logs see nothing.
`progress=lowbit.SILENT` silences one call, `LOWBIT_QUIET=1` in the environment all of them.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec, Protocol, TypeVar

Item = TypeVar("Item")
Given = ParamSpec("Given")
Result = TypeVar("Result")


class Progress(Protocol):
    """What a long loop reports to.

    >>> class Printed:
    ...     def track(self, items, what, total=None):
    ...         print(what)
    ...         return iter(items)
    ...     def note(self, text):
    ...         print(text)
    >>> statistics = lowbit.calibrate("model.onnx", "photos", progress=Printed())
    calibrating
    """

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items`, showing `what` and how many of `total` are done."""
        ...

    def note(self, text: str) -> None:
        """Tell users something while they wait."""
        ...


class Silent:
    """Shows nothing.

    >>> quantized = lowbit.quantize("model.onnx", "linear8", progress=lowbit.SILENT)
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items` unchanged."""
        return iter(items)

    def note(self, text: str) -> None:
        """Show nothing."""


SILENT: Progress = Silent("lowbit.SILENT")
IF_LONG: Progress = Silent("a bar if it takes long")  # `shows_progress` puts one in its place


def shows_progress(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """A public function whose `progress` is a bar, where somebody looks on, unless the caller says otherwise."""

    @functools.wraps(function)
    def showing(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        if kwargs.get("progress", IF_LONG) is not IF_LONG:
            return function(*args, **kwargs)
        from lowbit.reports.progress import automatic

        with automatic() as progress:
            kwargs["progress"] = progress
            return function(*args, **kwargs)

    return showing


def tell_detail(progress: Progress, text: str) -> None:
    """Tell what only those want to know who asked for details: a display that shows such has a method `detail`."""
    detail = getattr(progress, "detail", None)
    if detail is not None:
        detail(text)

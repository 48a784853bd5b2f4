"""HTML and SVG that cannot forget to escape: text is text unless `element` made it, and has no control characters."""

import html
from collections.abc import Iterable, Mapping, Sequence

from lowbit.printable import printable

VOID = {"br", "img", "input", "meta", "link", "hr", "col"}


class Markup(str):
    """A string that is markup already."""

    __slots__ = ()


def element(tag: str, attributes: Mapping[str, str | float] | None = None, *children: str) -> Markup:
    """`<tag attributes>children</tag>`; every child that is not `Markup`, and every attribute, is escaped."""
    words = [f' {name}="{escape(_text(value))}"' for name, value in (attributes or {}).items()]
    start = f"<{tag}{''.join(words)}>"
    return Markup(start if tag in VOID else f"{start}{join(children)}</{tag}>")


def join(parts: Iterable[str]) -> Markup:
    """Parts one after the other, escaped where they are not markup."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def _text(value: str | float) -> str:
    if isinstance(value, str):
        return value
    # Two decimals of a pixel are more than anyone sees, and keep a page of a thousand cells small.
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def escape(text: str) -> str:
    """Text as markup; line breaks stay."""
    return html.escape(printable(text, keep="\n\t"))


def table(heads: Sequence[str], lines: Iterable[Sequence[str]], *, text: tuple[int, ...] = ()) -> Markup:
    """A table that scrolls sideways where it must; the first cell of a line names it, columns in `text` are words."""
    words = [{"class": "text"} if i in text else {} for i in range(len(heads))]
    head = [element("th", {"scope": "col", **kind}, cell) for kind, cell in zip(words, heads, strict=True)]
    body = [
        element("tr", {}, *(element("td" if i else "th", words[i], cell) for i, cell in enumerate(line)))
        for line in lines
    ]
    whole = element("table", {}, element("thead", {}, element("tr", {}, *head)), element("tbody", {}, *body))
    return element("div", {"class": "scroll"}, whole)

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
    """A table that scrolls sideways where it must and that a click on a head sorts; the first cell of a line names it,
    columns in `text` are words.
    """
    words = [{"class": "text"} if i in text else {} for i in range(len(heads))]
    head = [sort_head(cell, **kind) for kind, cell in zip(words, heads, strict=True)]
    body = [
        element("tr", {}, element("th", {"scope": "row", **words[0]}, line[0]), *(
            element("td", kind, cell) for kind, cell in zip(words[1:], line[1:], strict=True)
        ))
        for line in lines
    ]  # fmt: skip
    whole = element(
        "table", {"class": "sortable"}, element("thead", {}, element("tr", {}, *head)), element("tbody", {}, *body)
    )
    return scrolling(whole)


def sort_head(title: str, *below: str, help: str = "", **attributes: str) -> Markup:
    """The head of a column: a click sorts by it. What stands `below` the title is small, such as its unit."""
    button = element("button", {"type": "button", **({"title": help} if help else {})}, title, *below)
    return element("th", {"scope": "col", **attributes}, button)


def scrolling(whole: Markup) -> Markup:
    """What may be wider than the page, in a box that scrolls and that the keyboard reaches."""
    return element("div", {"class": "scroll", "tabindex": "0"}, whole)

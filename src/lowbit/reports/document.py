"""An HTML page that stands alone: no network, no library; for a screen, a phone and paper, light and dark."""

import base64
import hashlib

from lowbit.reports.main_table import choice_style
from lowbit.reports.markup import Markup, element
from lowbit.reports.script import SCRIPT
from lowbit.reports.style import STYLE


def document(title: str, *body: Markup) -> str:
    """The text of a page."""
    # Nothing may be fetched from anywhere, and no script runs but our own, whatever a model file is called.
    script = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
    head = element(
        "head", {},
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("title", {}, title),
        element("style", {}, Markup(STYLE), Markup(choice_style())),
    )  # fmt: skip
    whole = element("body", {}, *body, element("script", {}, Markup(SCRIPT)))
    return f"<!doctype html>\n{element('html', {'lang': 'en'}, head, whole)}\n"

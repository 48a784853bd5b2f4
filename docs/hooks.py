"""What the site has and docs/ has not: README as its home, benchmarks, changes, notebooks, the page of the Python API.

Links between files of the repository become links between pages; of those to files without a page only the words stay.
"""

import ast
import json
import posixpath
import re
from itertools import chain
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# page -> file of the repository
ELSEWHERE = {"index.md": "README.md", "benchmarks/index.md": "benchmarks/README.md", "changelog.md": "CHANGELOG.md"}
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
# What a browser fetches by itself; links that are clicked are something else.
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=.?https?:[^>]*>|<link[^>]+(?:stylesheet|icon|preconnect)[^>]+https?:[^>]*>"
)
# headings of the API page, and the rooms of the package that stand under each
ROOMS = {
    "Models": ("formats", "graph", "engines"),
    "Data and calibration": ("data", "calibration"),
    "Quantize": ("quantization", "schemes"),
    "Measure": ("measurement", "reports", "certainty"),
    "Search": ("searching",),
    "Diagnose": ("diagnosis",),
    "Errors and progress": ("errors", "progress"),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made from other files."""
    made: dict[str, str | bytes] = {page: (ROOT / source).read_text("utf-8") for page, source in ELSEWHERE.items()}
    made["reference/python.md"] = python_page((ROOT / "src" / "lowbit" / "__init__.py").read_text("utf-8"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        made[f"notebooks/{path.stem}.md"] = notebook_page(json.loads(path.read_text("utf-8")))
    for path in (ROOT / "benchmarks" / "results").glob("*.svg"):
        made[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links that lead to pages; code stays as it is."""
    uri = page.file.src_uri
    if uri == "index.md":
        page.meta["hide"] = ["navigation"]  # it would hold this page alone
    folder = posixpath.dirname(ELSEWHERE.get(uri, uri if uri.startswith("notebooks/") else f"docs/{uri}"))

    def replaced(link: re.Match[str]) -> str:
        mark, words, target, anchor = link.groups(default="")
        path = posixpath.normpath(posixpath.join(folder, target))
        made = {source: name for name, source in ELSEWHERE.items()}.get(path, path.removeprefix("docs/"))
        made = re.sub(r"\.ipynb$", ".md", made)
        if files.get_file_from_path(made) is not None:
            return f"{mark}[{words}]({posixpath.relpath(made, posixpath.dirname(uri) or '.')}{anchor})"
        # Below docs/ a missing page is a mistake, which MkDocs reports.
        return link[0] if path.startswith("docs/") and not (ROOT / path).exists() else words

    parts = FENCE.split(markdown)
    return "".join(part if index % 2 else LINK.sub(replaced, part) for index, part in enumerate(parts))


def on_post_build(config: MkDocsConfig) -> None:
    """Nothing is loaded from elsewhere: not by the theme's script (diagrams, old browsers), and not by a page.

    Raises:
        PluginError: a page that would.
    """
    site = Path(config.site_dir)
    for script in site.glob("assets/javascripts/bundle.*.js"):
        script.write_text(script.read_text("utf-8").replace("https://unpkg.com/", "absent/"), "utf-8")
    for page in site.rglob("*.html"):
        if found := LOADED.search(page.read_text("utf-8")):
            raise PluginError(f"{page.relative_to(site)} loads from elsewhere: {found[0]}")


def python_page(package: str) -> str:
    """All public names, by the room that they come from; the text is that of `lowbit/__init__.py`.

    Raises:
        PluginError: a room that no heading speaks of.
    """
    tables = [
        node.value
        for node in ast.parse(package).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PUBLIC"
    ]
    public: dict[str, str] = ast.literal_eval(tables[0])
    if homeless := {module.split(".")[1] for module in public.values()} - set(chain(*ROOMS.values())):
        raise PluginError(f"ROOMS in docs/hooks.py has no heading for {', '.join(homeless)}.")
    lines = ["# Python", "", "All of this is in `lowbit`: `import lowbit`, then `lowbit.load`.", ""]
    for title, rooms in ROOMS.items():
        names = [name for name, module in public.items() if module.split(".")[1] in rooms]
        lines += [f"## {title}", ""] + [f"::: {public[name]}.{name}\n" for name in names]
    return "\n".join(lines)


def notebook_page(notebook: dict[str, Any]) -> str:
    """The cells of a notebook, with what they print and show."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [output_of(each) for each in cell.get("outputs", ())]
    return "\n\n".join(parts) + "\n"


def output_of(output: dict[str, Any]) -> str:
    """A picture, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img src="data:image/png;base64,{data["image/png"]}" alt="{"".join(data["text/plain"])}">'
    return "```text\n" + "".join(output.get("text") or data["text/plain"]).rstrip("\n") + "\n```"

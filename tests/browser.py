"""Pages in a real browser, which is started once: each in a frame of its own, with a script beside them that looks."""

import functools
import hashlib
import html
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
AXE = "4.11.0"
AXE_SHA256 = "e9e5863c33a874f09bc01acd9234b7e3c871479f5eef8802fa582544465e6d01"  # of axe.min.js
CACHE = Path.home() / ".cache" / "lowbit-tests" / f"axe-{AXE}.min.js"


@functools.cache
def axe() -> str:
    """The script of axe-core, downloaded once; skips the test where that is impossible."""
    if not CACHE.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm, which would fetch axe-core, is not installed")
        with tempfile.TemporaryDirectory() as folder:
            try:
                command = [npm, "pack", f"axe-core@{AXE}", "--silent", "--pack-destination", folder]
                subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=folder)
                with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                    script = archive.extractfile("package/axe.min.js").read()
            except (subprocess.SubprocessError, StopIteration):
                pytest.skip("axe-core could not be fetched")
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        CACHE.write_bytes(script)
    script = CACHE.read_bytes()
    assert hashlib.sha256(script).hexdigest() == AXE_SHA256
    return script.decode()


def dark(text: str) -> str:
    """A page as it is in dark mode."""
    return text.replace("@media screen and (prefers-color-scheme:dark)", "@media screen")


def seen(pages: dict[str, tuple[str, int]], look: str, folder: Path, *, tool: str = "") -> dict[str, dict]:
    """What a script sees in each page.

    Args:
        pages: by name, its text and the width of its frame.
        look: body of an async function of `d` (document) and `view` (window), which returns what it sees.
        folder: for the browser's own files.
        tool: a script that is run in each page beforehand; pages then do without their policy, which forbids that.
    """
    if BROWSER is None:
        pytest.skip("no browser of the Chromium family is installed")
    frames = []
    for text, width in pages.values():
        text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text) if tool else text
        frames.append(f'<iframe style="border:0;height:900px;width:{width}px" srcdoc="{html.escape(text)}"></iframe>')
    source = json.dumps(tool).replace("</", "<\\/")
    script = f"""
    const look = async (d, view) => {{ {look} }};
    onload = async () => {{
      const found = [];
      for (const frame of document.querySelectorAll("iframe")) {{
        const d = frame.contentDocument;
        const tool = {source};
        if (tool) d.body.appendChild(d.createElement("script")).textContent = tool;
        found.push(await look(d, frame.contentWindow).catch(error => ({{error: String(error.stack)}})));
      }}
      document.body.textContent = `RESULT${{JSON.stringify(found)}}END`;
    }};
    """
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!doctype html><meta charset=utf-8><body>{''.join(frames)}<script>{script}</script>", "utf-8")
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-extensions", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000",
        "--virtual-time-budget=60000", "--dump-dom", wrapper.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    measured = re.search(r"RESULT(\[.*\])END", done.stdout, re.S)
    assert measured, done.stderr[-2000:]
    return dict(zip(pages, json.loads(html.unescape(measured[1])), strict=True))

"""Build sdist and wheel, and use the wheel as a stranger would: `make wheel`, or `python tests/wheel/run.py`.

The sdist is built from the tree and the wheel from the sdist, so that neither lacks anything. The wheel is installed by
itself, without extras, into an environment in a folder that is removed afterwards; then its commands run there. Exit
code 1 and one sentence if anything is not as it should be.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_PACKAGES = 30  # lowbit itself counted, pip not
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
LINK = re.compile(r"(!?)(\[[^]]*\]\()(?!https?://|#)([^)]+\))")
QUICK = ("--recipes", "linear8", "--runs", "0")


def built(kind: str, source: Path, folder: Path) -> Path:
    """An sdist or a wheel of the tree in `source`, made in `folder` by the setuptools of this Python."""
    done = call(sys.executable, "-c", BUILD, kind, str(folder), cwd=source)
    return folder / done.stdout.splitlines()[-1]


def with_links(page: str, repository: str, tag: str) -> str:
    """A page whose links to files of the repository work outside of it too, such as on the page of a package index."""
    return LINK.sub(lambda m: f"{m[1]}{m[2]}{repository}/{'raw' if m[1] else 'blob'}/{tag}/{m[3]}", page)


def with_urls(project: str, repository: str, tag: str) -> str:
    """The text of pyproject.toml with the addresses of the project."""
    urls = f'[project.urls]\nRepository = "{repository}"\nChangelog = "{repository}/blob/{tag}/CHANGELOG.md"\n\n'
    return project.replace("[project.scripts]", f"{urls}[project.scripts]", 1)


def from_tree(folder: Path, published: tuple[str, str] | None = None) -> tuple[Path, Path]:
    """The sdist of the tree, and the wheel of what is in the sdist.

    Args:
        folder: to write them to.
        published: address of the repository, and the tag of this version there, which links lead to then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lowbit-build-") as place:
        # A copy: what lies about in the tree does not come along, and building leaves nothing in it.
        copy = Path(place) / "tree"
        names = call("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                (copy / name).write_bytes((ROOT / name).read_bytes())
        for name, changed in (("README.md", with_links), ("pyproject.toml", with_urls)) if published else ():
            (copy / name).write_text(changed((ROOT / name).read_text("utf-8"), *published), "utf-8")
        sdist = built("sdist", copy, folder)
        with tarfile.open(sdist) as archive:
            archive.extractall(place, filter="data")
        return sdist, built("wheel", Path(place) / sdist.name.removesuffix(".tar.gz"), folder)


def call(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command without this project's environment; it must succeed."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def checked(wheel: Path, place: Path, *, quick: bool) -> None:
    """Install the wheel into an environment of its own, count what came, and run its commands."""
    venv.create(place / "env", with_pip=True)
    scripts = place / "env" / ("Scripts" if os.name == "nt" else "bin")
    python, lowbit = str(scripts / "python"), str(scripts / "lowbit")
    say(f"Installing {wheel.name} with Python {sys.version.split()[0]}.")
    call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", str(wheel), cwd=place)
    listed = call(python, "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check", cwd=place).stdout
    packages = [name for line in listed.splitlines() if (name := line.split("==")[0]) not in ("pip", "setuptools")]
    say(f"{len(packages)} packages: {', '.join(packages)}.")
    if len(packages) > MOST_PACKAGES:
        sys.exit(f"{len(packages)} packages are installed, at most {MOST_PACKAGES} were promised.")
    version = "lowbit " + wheel.name.split("-")[1]
    for command in ((lowbit, "--version"), (python, "-m", "lowbit", "--version")):
        if (said := call(*command, cwd=place).stdout.strip()) != version:
            sys.exit(f"{' '.join(command)} says {said!r}, the wheel is {version!r}.")
    call(python, "-c", "import lowbit; [getattr(lowbit, name) for name in lowbit.__all__]", cwd=place)
    start = time.monotonic()
    demo = call(lowbit, "demo", "--out", "demo", *(QUICK if quick else ()), cwd=place).stdout
    say(re.sub(r"\n{2,}", "\n", demo).strip())
    if not (place / "demo" / "report.html").is_file():
        sys.exit("lowbit demo wrote no report.")
    say(f"lowbit demo took {time.monotonic() - start:.0f} s.")


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def main() -> None:
    """Build, install, try."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder for sdist and wheel")
    parser.add_argument("--wheel", type=Path, help="try this wheel, and build none")
    parser.add_argument("--build-only", action="store_true", help="do not try the wheel")
    parser.add_argument(
        "--published", nargs=2, metavar=("REPOSITORY", "TAG"), help="where links of the page on an index lead to"
    )
    parser.add_argument("--quick", action="store_true", help="a demo of one recipe, without timing")
    options = parser.parse_args()
    if options.wheel is None:
        sdist, wheel = from_tree(options.dist.resolve(), options.published)
        say(f"Built {sdist} and {wheel.name}.")
    else:
        wheel = options.wheel.resolve()
    if options.build_only:
        return
    with tempfile.TemporaryDirectory(prefix="lowbit-wheel-") as place:
        checked(wheel, Path(place), quick=options.quick)


if __name__ == "__main__":
    main()

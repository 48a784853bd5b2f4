"""What is published: versions agree, imports are declared, extras are named where they miss, workflows are sound."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import lowbit
from lowbit.errors import DataError, EngineError
from lowbit.extras import EXTRAS, imported, missing

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "lowbit"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
# Package when imported -> what is installed, where the names differ.
NAMES = {"PIL": "pillow", "google": "protobuf", "ai_edge_litert": "ai-edge-litert", "distributed": "dask"}


def named(requirements):
    return {re.match(r"[\w-]+", each)[0].lower() for each in requirements}


def brought_by(extra):
    """Packages that an extra brings, those of the extras that it names too."""
    packages = set()
    for each in PROJECT["optional-dependencies"][extra]:
        inner = re.fullmatch(r"lowbit\[(.+)\]", each)
        packages |= set().union(*map(brought_by, inner[1].split(","))) if inner else named([each])
    return packages


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert lowbit.__version__ == PROJECT["version"] == str(citation["version"])
    assert citation["license"] == PROJECT["license"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", lowbit.__version__)


def test_every_import_is_declared():
    line = re.compile(r"^ *(?:import (\w+)|from (\w+)[\w.]* import )", re.MULTILINE)
    used = {a or b for path in SOURCE.rglob("*.py") for a, b in line.findall(path.read_text(encoding="utf-8"))}
    used -= {*sys.stdlib_module_names, "lowbit"}
    always = named(PROJECT["dependencies"])
    undeclared = {name for name in used if NAMES.get(name, name.replace("_", "-")).lower() not in always}
    # IPython is imported where it runs already; pandas is for whoever has it.
    assert undeclared - {"IPython", "pandas"} <= EXTRAS.keys()


def test_extras_bring_what_the_table_says():
    for package, extra in EXTRAS.items():
        assert NAMES.get(package, package) in brought_by(extra)
    everything = set().union(*map(brought_by, PROJECT["optional-dependencies"]))
    assert brought_by("all") >= everything - {"mkdocs"}
    assert "matplotlib" not in brought_by("torch")
    assert brought_by("torch") <= brought_by("train") & brought_by("keras")


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError) as caught:
        imported(f"{package}.part", "this work", kind=DataError)
    wanted = (
        f"this work needs the package '{package}', which is not installed. Run: pip install 'lowbit[{EXTRAS[package]}]'"
    )
    assert str(caught.value) == wanted


def test_a_package_that_cannot_be_imported_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "half_there.py").write_text("raise ImportError('libfoo.so is too old')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=r"which cannot be imported: libfoo\.so is too old\. Install it again: pip"):
        imported("half_there", "this work")
    assert missing("other.part", "this").remedy == "Run: pip install other"


def test_nobody_else_says_how_to_install_an_extra():
    others = [path for path in SOURCE.rglob("*.py") if path.name != "extras.py"]
    assert [path.name for path in others if "pip install 'lowbit[" in path.read_text(encoding="utf-8")] == []


def test_the_wheel_has_every_file_of_the_package():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["lowbit"]
    for path in SOURCE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            inside = path.relative_to(SOURCE).as_posix()
            assert path.suffix == ".py" or any(fnmatch(inside, pattern) for pattern in patterns), inside
            folders = [path.parent, *path.parent.parents]
            if path.suffix == ".py":
                assert all((each / "__init__.py").exists() for each in folders[: folders.index(SOURCE) + 1]), inside


def test_the_oldest_python_is_one_that_is_tried_and_so_are_all_that_are_named():
    named_ones = [each.rpartition(" :: ")[2] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)]
    tried = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["try"]["strategy"]["matrix"]
    assert tried["python"] == named_ones
    assert PROJECT["requires-python"] == f">={named_ones[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_what_exists(path):
    text = path.read_text(encoding="utf-8")
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    for job in flow["jobs"].values():
        needs = job.get("needs", [])
        assert {needs} if isinstance(needs, str) else set(needs) <= flow["jobs"].keys()
        for step in job.get("steps", []):
            assert ("uses" in step) != ("run" in step)
            files = re.findall(r"(?:\.ci|tests|requirements)/[\w./]+", step.get("run", ""))
            assert all((ROOT / name).exists() for name in files), step
        if "uses" in job:
            assert (ROOT / job["uses"]).exists()
    for line in text.splitlines():
        assert "uses: " not in line or "uses: ./" in line or PINNED.search(line), line


def test_options_of_the_wheel_script_are_those_that_workflows_and_make_give():
    done = subprocess.run(
        [sys.executable, ROOT / "tests/wheel/run.py", "--help"], capture_output=True, text=True, check=True
    )
    for text in ((ROOT / ".github/workflows/release.yml").read_text(), (ROOT / ".ci/run").read_text()):
        lines = [line for line in text.splitlines() if "tests/wheel/run.py" in line or "QUICK=" in line]
        assert lines
        assert all(option in done.stdout for line in lines for option in re.findall(r"--[\w-]+", line))


def test_contributors_are_told_of_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = {word for line in re.findall(r"(?:^    |`)make ([a-z -]+)", text, re.MULTILINE) for word in line.split()}
    assert {"test", "wheel"} < told <= targets


def test_links_of_the_page_on_an_index_lead_to_the_version():
    spec = importlib.util.spec_from_file_location("wheel_run", ROOT / "tests" / "wheel" / "run.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    published = ("https://example.org/someone/lowbit", "v1.2.3")
    page = made.with_links(readme, *published)
    links = re.findall(r"(!?)\[[^]]*\]\(([^)]+)\)", page)
    assert len(links) > 10
    for picture, link in links:
        kind, _, path = link.removeprefix("https://example.org/someone/lowbit/").partition("/v1.2.3/")
        assert kind == ("raw" if picture else "blob")
        assert (ROOT / path.partition("#")[0]).exists(), link
    urls = tomllib.loads(made.with_urls((ROOT / "pyproject.toml").read_text(encoding="utf-8"), *published))
    assert urls["project"]["urls"]["Repository"] == published[0]
    assert urls["project"] == PROJECT | {"urls": urls["project"]["urls"]}

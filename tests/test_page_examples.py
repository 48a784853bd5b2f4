"""Every example of README and documentation runs, on an ordinary file: pages in order, blocks in order."""

import shutil

import pytest

import page_examples
from page_examples import FRAMEWORKS, commands, examples_of, make_workplace, run

PAGES = page_examples.pages()
SHOWN = {"inspect", "plan", "prepare", "quantize", "measure", "compare", "diagnose", "search", "pack", "unpack"}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """The folder after the first command of the README, from which all other pages go on."""
    folder = tmp_path_factory.mktemp("prepared")
    make_workplace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        page_examples.run_command(commands(examples_of("README.md")[0])[0], "README.md")
    return folder


@pytest.fixture
def workplace(prepared, tmp_path, monkeypatch):
    """A copy of that folder, and the process in it."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("quick_measuring", "workplace")
def test_examples(page):
    pytest.importorskip("ai_edge_litert")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for example in PAGES[page]:
        if example.mark == "":
            run(example, namespace)
        else:
            page_examples.check(example)


def test_marks_are_known():
    marks = {example.mark for examples in PAGES.values() for example in examples}
    assert all(mark in ("", "other tool", *FRAMEWORKS) or mark.startswith("not run: ") for mark in marks), marks


def test_readme_begins_with_an_ordinary_file(tmp_path):
    """Nothing in it says how images become the input."""
    import onnx

    make_workplace(tmp_path)
    assert not onnx.load(tmp_path / "exported.onnx").metadata_props
    assert "exported.onnx" in commands(examples_of("README.md")[0])[0]


def test_readme_shows_the_commands_that_matter():
    shown = {words[1] for each in examples_of("README.md") if each.language == "sh" for words in commands(each)}
    assert shown >= SHOWN


def test_the_python_example_is_short():
    (example,) = (each for each in examples_of("README.md") if each.language == "python")
    assert len([line for line in example.text.splitlines() if line.strip()]) <= 10

"""Examples of the documentation that need a framework: from a module or a Keras model to an ordinary ONNX file."""

from importlib.util import find_spec

import pytest

import lowbit
import page_examples
from page_examples import FRAMEWORKS, make_workplace, run

PAGES = {
    page: marked
    for page, examples in page_examples.pages().items()
    if (marked := [each for each in examples if each.mark in FRAMEWORKS])
}


@pytest.mark.filterwarnings("default")  # of the exporters
@pytest.mark.parametrize("page", PAGES)
def test_examples_with_a_framework(page, tmp_path, monkeypatch):
    framework = PAGES[page][0].mark
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    make_workplace(tmp_path)
    (tmp_path / "exported.onnx").unlink()
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for example in PAGES[page]:
        run(example, namespace)
    assert lowbit.load("exported.onnx").classes == 5

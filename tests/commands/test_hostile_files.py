"""Files made to do harm, through the commands that take them: each works or says in a sentence why not."""

import pytest

from test_cli import run

LINES = (
    "inspect FILE",
    "plan FILE -r int8",
    "quantize FILE -r linear4 -o OUT.onnx",
    "quantize FILE -r linear8 -o OUT.tflite",
    "pack FILE -o OUT.lowbit",
    "unpack FILE -o OUT.onnx",
)


@pytest.fixture(params=("onnx", "tflite"))
def files(request, shared_data):
    """Not a part of the project: own versions of each are in the tests of what they break."""
    found = sorted((shared_data.parent / "hostile").glob(f"*.{request.param}"))
    if not found:
        pytest.skip("the hostile files are not on this machine")
    return found


@pytest.mark.parametrize("line", LINES)
def test_each_works_or_is_refused_in_a_sentence(line, files, tmp_path, capfd):
    for file in files:
        words = [word.replace("FILE", str(file)).replace("OUT", str(tmp_path / "out")) for word in line.split()]
        code, _, error = run(*words, capsys=capfd)
        assert code in (0, 2), file
        if code == 2:
            assert error.startswith("Error: ")
            assert error.count("\n") == 1, error

"""Archives of other frameworks that are damaged: lowbit reads them before torch or Keras, and says so in a sentence."""

import io
import zipfile

import pytest

import lowbit
from lowbit.errors import ModelError


def archive(how):
    """One whose only member does not unpack to what was packed."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", how) as written:
        written.writestr("m/models/model.json", '{"graph": "' + "abc" * 100 + '"}')
    data = bytearray(made.getvalue())
    start = 30 + len("m/models/model.json")
    data[start + 2 : start + 12] = b"\xff" * 10
    return bytes(data)


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_a_sentence(how, tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(archive(how))
    with pytest.raises(ModelError, match="cannot be read"):
        lowbit.load(path)


@pytest.mark.parametrize("ending", [".pt2", ".keras", ".pt"])
def test_an_archive_that_is_cut_is_a_sentence(ending, tmp_path):
    path = tmp_path / f"net{ending}"
    for size in range(0, 200, 7):
        path.write_bytes(archive(zipfile.ZIP_DEFLATED)[:size])
        with pytest.raises(ModelError):
            lowbit.load(path)

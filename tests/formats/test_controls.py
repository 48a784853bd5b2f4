"""The ledger of an archive: three files, each to the last byte, and the bounds beside them."""

import lzma

import pytest

import lowbit
import networks
from lowbit.formats.controls import controls
from lowbit.quantization.pack import pack


@pytest.mark.parametrize("recipe", ["float", "linear4", "cluster3"])
def test_every_column_sums_to_its_file(recipe, tmp_path):
    model = lowbit.load(networks.residual_network(first=32))
    given = model.to_bytes()
    path = lowbit.quantize(model, recipe).save(tmp_path / "m.onnx")
    packed = pack(path)
    counted = controls(given, packed.content, packed.archive, control=True)
    assert sum(counted.given.values()) == len(given)
    assert sum(counted.packed.values()) == path.stat().st_size
    assert sum(counted.archive.values()) == len(packed.archive)
    assert counted.xz_bytes == len(lzma.compress(given, preset=9))
    if recipe == "float":
        assert counted.fixed_bytes == counted.float_bytes == counted.entropy_bytes == 0
    else:
        assert 0 < counted.entropy_bytes < counted.fixed_bytes < counted.float_bytes
        assert counted.fixed_bytes == pytest.approx(counted.float_bytes * int(recipe[-1]) / 32, rel=0.02)
    again = controls(packed.archive, packed.content, packed.archive, control=False)
    assert again.given == counted.packed
    assert again.xz_bytes is None

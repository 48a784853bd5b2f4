"""Finished work that is kept in a folder whose names others can know: what they put there does no harm."""

import errno
import os

import pytest

from lowbit.errors import OutputError
from lowbit.keeping import DAMAGES, INDEX, keeping, known_of


def test_links_that_somebody_planted_are_not_followed(tmp_path):
    victim, place = tmp_path / "victim", tmp_path / "kept" / "piece"
    victim.write_text("precious")
    place.mkdir(parents=True)
    for name in ("weights", INDEX):
        (place / name).symlink_to(victim)
    os.link(victim, place / "also")
    os.mkfifo(place / "pipe")
    with keeping(place, {"known": 1}):
        for name in ("weights", "also", "pipe"):
            (place / name).write_text("new")
    assert victim.read_text() == "precious"
    assert known_of(place) == {"known": 1}
    away = tmp_path / "away"
    away.mkdir()
    other = place.with_name("other")
    other.symlink_to(away)
    with keeping(other, {}):
        (other / "weights").write_text("new")
    assert list(away.iterdir()) == []


@pytest.mark.parametrize("name", ["weights", INDEX])
def test_pipes_are_not_waited_for(tmp_path, name):
    place = tmp_path / "piece"
    with keeping(place, {}):
        (place / "weights").write_text("new")
    (place / name).unlink()
    os.mkfifo(place / name)
    with pytest.raises(DAMAGES):
        known_of(place)


def test_what_could_not_be_written_whole_is_gone(tmp_path):
    place = tmp_path / "kept" / "piece"

    def write():
        with keeping(place, {}):
            (place / "weights").write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match="No space left"):
        write()
    assert not place.exists()

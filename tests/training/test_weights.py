import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from lowbit.data import download  # noqa: E402
from lowbit.errors import DataError, ModelError  # noqa: E402
from lowbit.training import weights  # noqa: E402
from lowbit.training.mobilenet import MobileNetV2  # noqa: E402

PAYLOAD = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()


class Unreliable(http.server.BaseHTTPRequestHandler):
    """Serves PAYLOAD; `broken` answers stop in the middle."""

    broken = 0
    ranges: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = PAYLOAD[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(PAYLOAD) - 1}/{len(PAYLOAD)}")
        self.end_headers()
        if type(self).broken > 0:
            type(self).broken -= 1
            body = body[:70_000]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[str]:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    Unreliable.broken, Unreliable.ranges = 0, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unreliable) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/file.pth"
        running.shutdown()
        thread.join()


def test_a_broken_download_goes_on_where_it_stopped(server: str, tmp_path: Path) -> None:
    Unreliable.broken = 1
    target = weights.fetch_weights(server, tmp_path / "new" / "file.pth", sha256=SHA256)
    assert target.read_bytes() == PAYLOAD
    assert Unreliable.ranges == [None, "bytes=70000-"]
    assert [path.name for path in target.parent.iterdir()] == ["file.pth"]


def test_a_download_that_never_heals_keeps_its_part_for_later(server: str, tmp_path: Path) -> None:
    Unreliable.broken = 99
    with pytest.raises(DataError, match="download failed"):
        weights.fetch_weights(server + "?", tmp_path / "file.pth", sha256="0" * 64)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth.part"]
    assert (tmp_path / "file.pth.part").read_bytes() == PAYLOAD[:280_000]
    Unreliable.broken = 0
    assert weights.fetch_weights(server, tmp_path / "file.pth", sha256=SHA256).read_bytes() == PAYLOAD


def test_another_file_is_refused_and_removed(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 7ebf99e03e25"):
        weights.fetch_imagenet(url=server, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_only_begins_with_the_right_hash_is_refused(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected"):
        weights.fetch_weights(server, tmp_path / "file.pth", sha256=SHA256[:8] + "0" * 56)
    assert list(tmp_path.iterdir()) == []
    assert weights.IMAGENET_URL.endswith(f"-{weights.IMAGENET_SHA256[:8]}.pth")


def test_a_planted_link_is_not_followed(server: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "file.pth.part").symlink_to(tmp_path / "precious")
    with pytest.raises(DataError, match="a link"):
        weights.fetch_weights(server, tmp_path / "file.pth", sha256=SHA256)
    assert (tmp_path / "precious").read_text() == "mine"


def test_no_answer_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    with pytest.raises(DataError, match=r"the download failed: .*refused") as caught:
        weights.fetch_weights("http://127.0.0.1:9/file.pth", tmp_path / "file.pth", sha256="")
    assert "--weights FILE" in caught.value.remedy


def test_imagenet_weights_load_without_their_classifier(tmp_path: Path) -> None:
    source = MobileNetV2(1000)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = MobileNetV2(3)
    own = model.classifier[1].weight.clone()
    assert not weights.load_weights(model, weights.read_state(tmp_path / "w.pth"), source="w.pth")
    assert torch.equal(model.features[18][0].weight, source.features[18][0].weight)
    assert torch.equal(model.classifier[1].weight, own)
    assert weights.load_weights(MobileNetV2(1000), source.state_dict(), source="w.pth")


def test_wrong_names_and_shapes_are_named_at_once() -> None:
    state = MobileNetV2(3).state_dict()
    del state["features.0.0.weight"]
    state["features.18.0.weight"] = torch.zeros(1280, 320, 3, 3)
    state["module.x"] = torch.zeros(1)
    model = MobileNetV2(3)
    before = model.features[1].conv[1].weight.clone()
    with pytest.raises(ModelError) as caught:
        weights.load_weights(model, state, source="w.pth")
    message = str(caught.value)
    assert message.startswith("w.pth: these are not the weights of a MobileNetV2")
    assert "missing features.0.0.weight" in message
    assert "unknown module.x" in message
    assert "features.18.0.weight (1280, 320, 3, 3) instead of (1280, 320, 1, 1)" in message
    assert torch.equal(model.features[1].conv[1].weight, before)


@pytest.mark.parametrize("content", [b"", b"not a pickle", None])
def test_unreadable_weights(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="no such file" if content is None else "cannot be read as weights"):
        weights.read_state(path)


def test_whole_pickled_modules_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(DataError, match="cannot be read as weights"):
        weights.read_state(tmp_path / "module.pth")
    torch.save({"epoch": 3}, tmp_path / "dict.pth")
    with pytest.raises(DataError, match="not hold a plain mapping"):
        weights.read_state(tmp_path / "dict.pth")

"""Fetching from a server on this machine: broken connections, hostile archives, runs that are repeated."""

import hashlib
import http.server
import io
import json
import re
import stat
import threading
import urllib.request
import zipfile
from dataclasses import dataclass, field, replace
from email.message import Message

import pytest

from lowbit.data import download as download_module
from lowbit.data import fetch
from lowbit.data.fetch import CLASSES, Limits, Part, fetch_rps
from lowbit.errors import DataError, OutputError
from lowbit.progress import Silent

PARTS = (Part("rps.zip", "train", 3), Part("rps-test-set.zip", "test", 2))


@dataclass
class Site:
    """What the server holds, how it behaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    cut_after: int | None = None  # bytes of a body before the connection drops
    cuts: int = 0  # how many answers are cut
    status: int | None = None
    redirect: str | None = None
    told_length: bool = True
    wrong_range: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        site = self.server.site
        wanted = self.headers.get("Range")
        site.asked.append((self.path.lstrip("/"), wanted))
        body = site.files.get(self.path.lstrip("/"))
        if site.redirect:
            self.send_response(302)
            self.send_header("Location", site.redirect)
            self.end_headers()
            return
        if body is None or site.status:
            self.send_error(site.status or 404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and site.ranges else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if wanted and site.ranges else 200)
        if wanted and site.ranges:
            told = start + 1 if site.wrong_range else start
            self.send_header("Content-Range", f"bytes {told}-{len(body) - 1}/{len(body)}")
        if site.told_length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        piece = body[start:]
        if site.cuts:
            site.cuts -= 1
            piece = piece[: site.cut_after]
        self.wfile.write(piece)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.001)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    server.site = Site(url=f"http://127.0.0.1:{server.server_port}")
    server.site.files = {"rps.zip": rps("rps", 3), "rps-test-set.zip": rps("rps-test-set", 2)}
    yield server.site
    server.shutdown()
    server.server_close()
    thread.join()


def picture(name):
    return hashlib.shake_256(name.encode()).digest(2560)


def rps(root, per_class, extra=(), skip=(), method=zipfile.ZIP_DEFLATED):
    """An archive as the originals are, with (ZipInfo or name, bytes) added and names left out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(f"{root}/", b"")
        archive.writestr(f"{root}/.DS_Store", b"x")
        archive.writestr("__MACOSX/rps/paper/._paper1.png", b"x")
        for kind in CLASSES:
            archive.writestr(f"{root}/{kind}/", b"")
            for i in range(per_class):
                name = f"{root}/{kind}/{kind}{i}.png"
                if name not in skip:
                    archive.writestr(name, picture(name))
        for info, data in extra:
            archive.writestr(info, data)
    return buffer.getvalue()


def run(site, folder, **options):
    return fetch_rps(folder, base_url=site.url, **{"parts": PARTS, **options})


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_arrives(site, tmp_path):
    folder = tmp_path / "new" / "rps"
    assert run(site, folder) == folder
    for part, root in zip(PARTS, ("rps", "rps-test-set"), strict=True):
        for kind in CLASSES:
            files = sorted((folder / part.split / kind).iterdir())
            assert [file.name for file in files] == [f"{kind}{i}.png" for i in range(part.per_class)]
            assert files[0].read_bytes() == picture(f"{root}/{kind}/{kind}0.png")
    assert leftovers(folder) == ["fetched.json", "test", "train"]
    record = json.loads((folder / "fetched.json").read_text())
    assert record["rps.zip"] == {
        "bytes": len(site.files["rps.zip"]),
        "images": 9,
        "sha256": hashlib.sha256(site.files["rps.zip"]).hexdigest(),
        "split": "train",
        "url": f"{site.url}/rps.zip",
    }
    assert record["rps-test-set.zip"]["images"] == 6
    assert stat.S_IMODE((folder / "train").stat().st_mode) & 0o700 == 0o700
    assert stat.S_IMODE((folder / "train").stat().st_mode) == stat.S_IMODE(folder.stat().st_mode)


def test_the_originals_are_what_is_fetched_by_default():
    assert [(p.archive, p.split, 3 * p.per_class) for p in fetch.PARTS] == [
        ("rps.zip", "train", 2520),
        ("rps-test-set.zip", "test", 372),
    ]
    assert fetch.BASE_URL == "https://storage.googleapis.com/download.tensorflow.org/data/"


def test_a_second_run_asks_for_nothing(site, tmp_path):
    run(site, tmp_path)
    before = len(site.asked)
    run(site, tmp_path)
    assert len(site.asked) == before
    run(site, tmp_path, parts=(PARTS[0],))
    (tmp_path / "train" / "rock" / "rock1.png").unlink()
    with pytest.raises(DataError, match=r"holds paper 3, rock 2, scissors 3 images.*Move it away"):
        run(site, tmp_path)


def test_only_the_missing_split_is_fetched(site, tmp_path):
    run(site, tmp_path, parts=PARTS[:1])
    site.asked.clear()
    run(site, tmp_path)
    assert [name for name, _ in site.asked] == ["rps-test-set.zip"]
    assert set(json.loads((tmp_path / "fetched.json").read_text())) == {"rps.zip", "rps-test-set.zip"}


def test_a_dropped_connection_is_taken_up_where_it_stopped(site, tmp_path):
    site.cut_after, site.cuts = 1000, 2
    run(site, tmp_path)
    assert site.asked[:3] == [("rps.zip", None), ("rps.zip", "bytes=1000-"), ("rps.zip", "bytes=2000-")]
    assert (tmp_path / "train" / "rock" / "rock0.png").read_bytes() == picture("rps/rock/rock0.png")


def test_a_download_that_keeps_breaking_is_continued_by_the_next_run(site, tmp_path):
    site.cut_after, site.cuts = 500, download_module.ATTEMPTS
    with pytest.raises(DataError, match=r"failed: only 2000 of \d+ bytes arrived.*Run again to continue"):
        run(site, tmp_path)
    assert leftovers(tmp_path) == ["rps.zip.part"]
    assert (tmp_path / "rps.zip.part").read_bytes() == site.files["rps.zip"][:2000]
    site.asked.clear()
    run(site, tmp_path)
    assert site.asked[0] == ("rps.zip", "bytes=2000-")
    assert leftovers(tmp_path) == ["fetched.json", "test", "train"]


class Interrupting(Silent):
    """Ctrl-C after some pieces of what is named."""

    def __init__(self, what, after):
        self.what, self.after = what, after

    def track(self, items, what, total=None):
        for number, item in enumerate(items):
            if self.what in what and number == self.after:
                raise KeyboardInterrupt
            yield item


def test_ctrl_c_while_downloading_keeps_what_came(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "CHUNK_BYTES", 700)
    with pytest.raises(KeyboardInterrupt):
        run(site, tmp_path, progress=Interrupting("rps.zip", 3))
    assert leftovers(tmp_path) == ["rps.zip.part"]
    assert (tmp_path / "rps.zip.part").read_bytes() == site.files["rps.zip"][:2100]
    site.asked.clear()
    run(site, tmp_path)
    assert site.asked[0] == ("rps.zip", "bytes=2100-")


def test_ctrl_c_while_unpacking_leaves_nothing_half_extracted(site, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(site, tmp_path, progress=Interrupting("unpacking", 4))
    assert leftovers(tmp_path) == ["rps.zip"]
    site.asked.clear()
    run(site, tmp_path)
    assert [name for name, _ in site.asked] == ["rps-test-set.zip"]
    assert (tmp_path / "train" / "scissors").is_dir()


def test_a_server_without_ranges_sends_all_again(site, tmp_path):
    site.ranges = False
    (tmp_path / "rps.zip.part").write_bytes(b"something else" * 9000)
    site.cut_after, site.cuts = 1000, 1
    run(site, tmp_path)
    assert [wanted for name, wanted in site.asked if name == "rps.zip"] == ["bytes=126000-", "bytes=1000-"]
    assert (tmp_path / "train" / "rock" / "rock0.png").read_bytes() == picture("rps/rock/rock0.png")


def test_a_part_that_is_whole_already_is_used(site, tmp_path):
    (tmp_path / "rps.zip.part").write_bytes(site.files["rps.zip"])
    run(site, tmp_path)
    assert (tmp_path / "train" / "paper").is_dir()


def test_a_part_longer_than_the_file_starts_over(site, tmp_path):
    (tmp_path / "rps.zip.part").write_bytes(bytes(len(site.files["rps.zip"]) + 5))
    run(site, tmp_path)
    assert site.asked[1] == ("rps.zip", None)
    assert (tmp_path / "train" / "paper").is_dir()


def test_a_part_of_another_version_fails_its_checksums_and_is_dropped(site, tmp_path):
    (tmp_path / "rps.zip.part").write_bytes(bytes(1500))
    with pytest.raises(DataError, match=r"rps\.zip.*Run again to download it again"):
        run(site, tmp_path)
    assert leftovers(tmp_path) == []
    run(site, tmp_path)


def test_a_server_that_sends_another_range(site, tmp_path):
    site.wrong_range = True
    (tmp_path / "rps.zip.part").write_bytes(site.files["rps.zip"][:100])
    with pytest.raises(DataError, match="another range"):
        run(site, tmp_path)


def test_errors_of_the_server(site, tmp_path):
    del site.files["rps.zip"]
    with pytest.raises(DataError, match=r"rps\.zip: the server answered 404 Not Found.*by hand"):
        run(site, tmp_path)
    assert len(site.asked) == 1
    site.status = 503
    with pytest.raises(DataError, match="failed: 503"):
        run(site, tmp_path)
    assert len(site.asked) == 1 + download_module.ATTEMPTS


def test_no_server_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.001)
    with pytest.raises(DataError, match=r"failed.*refused"):
        fetch_rps(tmp_path, base_url="http://127.0.0.1:1/", parts=PARTS)


@pytest.mark.parametrize("url", ["http://example.org/", "ftp://127.0.0.1/", "file:///tmp/"])
def test_only_https_or_this_machine(tmp_path, url):
    with pytest.raises(DataError, match="must use https"):
        fetch_rps(tmp_path, base_url=url, parts=PARTS)


@pytest.mark.parametrize("target", ["http://example.org/rps.zip", "file:///etc/passwd", "ftp://example.org/rps.zip"])
def test_redirects_lead_only_where_a_download_may_start(site, tmp_path, target):
    site.redirect = target
    with pytest.raises(DataError):
        run(site, tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("told_length", [True, False])
def test_more_bytes_than_expected_are_not_taken(site, tmp_path, told_length):
    site.told_length = told_length
    with pytest.raises(DataError, match="bytes"):
        run(site, tmp_path, limits=Limits(archive_bytes=4000))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0
    run(site, tmp_path)


def test_a_given_hash_is_checked(site, tmp_path):
    right = hashlib.sha256(site.files["rps.zip"]).hexdigest()
    with pytest.raises(DataError, match=f"the SHA-256 is {right}, expected {'0' * 64}"):
        run(site, tmp_path, parts=(replace(PARTS[0], sha256="0" * 64),))
    assert leftovers(tmp_path) == []
    run(site, tmp_path, parts=(replace(PARTS[0], sha256=right),))


@pytest.mark.parametrize("target", ["precious", "nothing yet"])
def test_a_planted_link_is_not_followed(site, tmp_path, target):
    (tmp_path / "precious").write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "rps.zip.part").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match="is a link"):
        run(site, folder)
    assert leftovers(tmp_path) == ["folder", "precious"]
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_link_planted_while_the_server_is_asked_is_not_followed(site, tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("mine")
    asked = download_module._expected
    monkeypatch.setattr(
        download_module,
        "_expected",
        lambda *of: (tmp_path / "rps.zip.part").symlink_to(tmp_path / "precious") or asked(*of),
    )
    with pytest.raises(OutputError):
        run(site, tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("target", ["http://example.org/x", "http://localhost/x", "file:///etc/passwd"])
def test_https_leads_to_nothing_but_https(target):
    """Not even to this machine, whose services trust what is on it."""
    asked = urllib.request.Request("https://example.org/x")
    redirects = download_module._SecureRedirects()
    with pytest.raises(DataError, match="must use https"):
        redirects.redirect_request(asked, None, 302, "Found", Message(), target)
    assert redirects.redirect_request(asked, None, 302, "Found", Message(), "https://example.com/x") is not None


def test_an_archive_put_there_by_hand_is_used_and_kept(site, tmp_path):
    (tmp_path / "rps.zip").write_bytes(site.files["rps.zip"])
    run(site, tmp_path)
    assert [name for name, _ in site.asked] == ["rps-test-set.zip"]
    assert leftovers(tmp_path) == ["fetched.json", "rps.zip", "test", "train"]


def test_a_bad_archive_put_there_by_hand_is_not_deleted(site, tmp_path):
    (tmp_path / "rps.zip").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"not a complete zip archive.*Delete .*rps\.zip and run again"):
        run(site, tmp_path)
    assert leftovers(tmp_path) == ["rps.zip"]


def test_a_folder_that_cannot_be_made(site, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        run(site, tmp_path / "file" / "below")


def link(name, target="/etc/passwd"):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target


def named(name):
    """A member whose name zipfile would not write by itself."""
    info = zipfile.ZipInfo("x")
    info.filename = name
    return info, picture("x")


HOSTILE = {
    "absolute": ([named("/rps/rock/evil.png")], "leads out"),
    "parent": ([named("rps/../../rock/evil.png")], "leads out"),
    "drive": ([named("C:/rps/rock/evil.png")], "leads out"),
    "backslash": ([named("rps\\rock\\..\\evil.png")], "leads out"),
    "control": ([named("rps/rock/e\x01vil.png")], "leads out"),
    "link": ([link("rps/rock/rock0b.png")], "link or special"),
    "link folder": ([link("rps/rock2")], "link or special"),
    "twice": ([("rps/rock/ROCK0.png", b"x")], "name occurs twice"),
    "twice in another folder": ([("other/rock/rock0.png", b"x")], "name occurs twice"),
    "other folder": ([("rps/lizard/lizard.png", b"x")], "not in one of the folders"),
    "no folder": ([("evil.png", b"x")], "not in one of the folders"),
    "large member": ([("rps/notes.txt", bytes(300_000))], "bomb"),
    "bomb": ([("rps/rock/bomb.png", bytes(90_000))], "bomb"),
    "too many": ([(f"rps/notes{i}.txt", b"") for i in range(100)], "members"),
    "one more": ([("rps/rock/rock9.png", b"x")], "paper 3, rock 4, scissors 3 images, expected 3 each"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_wrong_archives_leave_nothing(site, tmp_path, case):
    extra, message = HOSTILE[case]
    site.files["rps.zip"] = rps("rps", 3, extra)
    folder = tmp_path / "inside"
    limits = Limits(member_bytes=100_000, ratio=50, ratio_matters_bytes=50_000, members=50)
    with pytest.raises(DataError, match=message) as caught:
        run(site, folder, limits=limits)
    assert "rps.zip" in str(caught.value)
    assert leftovers(folder) == []
    assert leftovers(tmp_path) == ["inside"]


def test_total_size_is_bounded(site, tmp_path):
    with pytest.raises(DataError, match="so far"):
        run(site, tmp_path, limits=Limits(total_bytes=10_000))
    assert leftovers(tmp_path) == []


def test_missing_images_are_counted(site, tmp_path):
    site.files["rps.zip"] = rps("rps", 3, skip=("rps/paper/paper1.png",))
    with pytest.raises(DataError, match="it holds paper 2, rock 3, scissors 3 images, expected 3 each"):
        run(site, tmp_path)
    assert leftovers(tmp_path) == []


def test_a_million_members_are_refused_before_they_are_read(site, tmp_path, monkeypatch):
    site.files["rps.zip"] = rps("rps", 3, [(f"rps/notes{i}.txt", b"") for i in range(500)])
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(DataError, match="more than 20 members"):
        run(site, tmp_path, limits=Limits(members=20))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_anywhere_in_the_archive_is_noticed_or_harmless(site, tmp_path, method):
    """Every flipped byte is refused with nothing left, or the images are what they were."""
    part = (Part("rps.zip", "train", 1),)
    whole = rps("rps", 1, method=method)
    want = {f"{kind}/{kind}0.png": picture(f"rps/{kind}/{kind}0.png") for kind in CLASSES}
    refused = 0
    for number, at in enumerate(range(0, len(whole), 53)):
        broken = bytearray(whole)
        broken[at] ^= 0xFF
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "rps.zip").write_bytes(broken)
        try:
            run(site, folder, parts=part)
        except DataError:
            refused += 1
            assert leftovers(folder) == ["rps.zip"]
        else:
            found = [path.read_bytes() for path in sorted((folder / "train").rglob("*.png"))]
            assert found == [want[key] for key in sorted(want)]
    assert refused > number / 2


def test_cut_archives_and_error_pages(site, tmp_path):
    whole = site.files["rps.zip"]
    for content in (whole[:-30], whole[: len(whole) // 2], b"", b"<html>busy</html>"):
        site.files["rps.zip"] = content
        with pytest.raises(DataError, match=r"rps\.zip"):
            run(site, tmp_path)
        assert leftovers(tmp_path) == []


def test_encrypted_members_are_refused(site, tmp_path):
    data = bytearray(site.files["rps.zip"])
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(signature) + offset] |= 1
    site.files["rps.zip"] = bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        run(site, tmp_path)

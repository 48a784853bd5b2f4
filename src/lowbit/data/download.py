"""One file over https into a `.part` file, which the next run continues if this one is interrupted.

Nothing tells whether the file on the server changed in between: the caller has to check what was downloaded (by a hash,
or the checksums of a zip archive).
"""

import http.client
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import IO

from lowbit.errors import DataError
from lowbit.progress import SILENT, Progress

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 4
PAUSE_SECONDS = 1.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to URLs that a download may also start from, and from https to nothing else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        _check_url(newurl, here=urllib.parse.urlsplit(req.full_url).scheme == "http")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _check_url(url: str, *, here: bool = True) -> None:
    """Refuse all but https; and http on this machine, unless what leads there comes from elsewhere."""
    parsed = urllib.parse.urlsplit(url)
    if parsed.scheme != "https" and not (here and parsed.scheme == "http" and parsed.hostname in LOOPBACK):
        raise DataError("downloads must use https.", where=url, remedy="Give a base URL that begins with https://.")


def download(url: str, aside: Path, *, limit: int, progress: Progress = SILENT) -> None:
    """Fill `aside`, continuing where an earlier run stopped; a broken connection is retried a few times.

    Args:
        url: https, or http on this machine; redirects likewise.
        aside: the file to fill; complete when this returns, and kept for the next run when it raises.
        limit: maximum size in bytes.
        progress: told after every chunk.

    Raises:
        DataError: no connection, a server error, more than `limit` bytes, or `aside` is a link.
        OSError: `aside` cannot be written.
    """
    _check_url(url)
    if aside.is_symlink():
        raise DataError("is a link, which is not followed.", where=str(aside), remedy="Remove it and run again.")
    opener = urllib.request.build_opener(_SecureRedirects())
    for attempt in range(ATTEMPTS):
        before = aside.stat().st_size if aside.exists() else 0
        try:
            _continue(opener, url, aside, limit, progress)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code != 429:
                raise DataError(
                    f"the server answered {error.code} {error.reason}.",
                    where=url,
                    remedy=f"Put the file into {aside.parent} by hand and run again.",
                ) from error
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        got = (aside.stat().st_size if aside.exists() else 0) - before
        if attempt + 1 < ATTEMPTS:
            progress.note(f"{url}: {reason} after {got} bytes; trying again.")
            time.sleep(PAUSE_SECONDS * 2**attempt)
    raise DataError(
        f"the download failed: {reason}.",
        where=url,
        remedy=f"Run again to continue where it stopped, or put the file into {aside.parent} by hand.",
    )


def _continue(opener: urllib.request.OpenerDirector, url: str, aside: Path, limit: int, progress: Progress) -> None:
    have = aside.stat().st_size if aside.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # The server has no more bytes than we do: the file is complete, or it is another version.
        error.close()
        if error.headers.get("Content-Range", "").strip() == f"bytes */{have}":
            return
        aside.unlink()
        have, response = 0, opener.open(urllib.request.Request(url), timeout=TIMEOUT_SECONDS)
    with response:
        start, total = _expected(response, have, url)
        if max(total or 0, start) > limit:
            raise DataError(f"the file has {total} bytes, the maximum is {limit}.", where=url)
        kind = os.O_RDWR if start else os.O_RDWR | os.O_CREAT | os.O_TRUNC
        handle = os.open(aside, kind | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(handle, "r+b") as file:
            file.seek(start)
            at = start
            pieces = None if total is None else -(-(total - start) // CHUNK_BYTES)
            for chunk in progress.track(_chunks(response), aside.name.removesuffix(".part"), total=pieces):
                at += len(chunk)
                if at > limit:
                    file.truncate(0)
                    raise DataError(f"the file has more than {limit} bytes.", where=url)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and at != total:
            raise ConnectionError(f"only {at} of {total} bytes arrived")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK_BYTES):
            yield chunk
    except OSError as error:
        # Unlike a disk that cannot be written, this is worth another attempt.
        raise ConnectionError(str(error)) from error


def _expected(response: http.client.HTTPResponse, have: int, url: str) -> tuple[int, int | None]:
    """The offset of the response's bytes, and the size of the whole file if the server says it."""
    length = response.headers.get("Content-Length", "")
    if response.status != 206:
        # The server does not support ranges and sends the whole file.
        return 0, int(length) if length.isdecimal() else None
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != have:
        raise DataError("the server sent another range than requested.", where=url, remedy="Delete the .part file.")
    return have, int(match[2]) + 1 if match[3] == "*" else int(match[3])

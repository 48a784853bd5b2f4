"""One file over https into a `.part` file, which an interrupted run leaves for the next one to go on with.

Nothing tells whether the file on the server changed in between: what was downloaded has to be checked by whoever asked
for it (a hash, the checksums of a zip archive).
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
    """Follows a redirect only to where a download may start as well."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _check_url(url: str) -> None:
    parsed = urllib.parse.urlsplit(url)
    if parsed.scheme != "https" and not (parsed.scheme == "http" and parsed.hostname in LOOPBACK):
        raise DataError(
            "only https is downloaded from.", where=url, remedy="Give a base URL that begins with https://."
        )


def download(url: str, aside: Path, *, limit: int, progress: Progress = SILENT) -> None:
    """Fill `aside`, going on where an earlier run stopped; a broken connection is taken up again a few times.

    Args:
        url: https, or http on this machine; redirects likewise.
        aside: the file to fill; whole when this returns, and kept for the next run when it raises.
        limit: most bytes to take.
        progress: told after every piece.

    Raises:
        DataError: no connection, an error of the server, or more than `limit` bytes.
        OSError: `aside` cannot be written.
    """
    _check_url(url)
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
                    f"the server answers {error.code} {error.reason}.",
                    where=url,
                    remedy=f"Put the archive into {aside.parent} by hand and run again.",
                ) from error
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        got = (aside.stat().st_size if aside.exists() else 0) - before
        if attempt + 1 < ATTEMPTS:
            progress.note(f"{url}: {reason}; after {got} bytes, trying again.")
            time.sleep(PAUSE_SECONDS * 2**attempt)
    raise DataError(
        f"the download broke off: {reason}.",
        where=url,
        remedy=f"Run again to go on where it stopped, or put the archive into {aside.parent} by hand.",
    )


def _continue(opener: urllib.request.OpenerDirector, url: str, aside: Path, limit: int, progress: Progress) -> None:
    have = aside.stat().st_size if aside.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing lies beyond what is here: it is all there, or it belongs to another version of the file.
        error.close()
        if error.headers.get("Content-Range", "").strip() == f"bytes */{have}":
            return
        aside.unlink()
        have, response = 0, opener.open(urllib.request.Request(url), timeout=TIMEOUT_SECONDS)
    with response:
        start, total = _expected(response, have, url)
        if max(total or 0, start) > limit:
            raise DataError(f"{total} bytes are offered, at most {limit} are taken.", where=url)
        with aside.open("r+b" if start else "wb") as file:
            file.seek(start)
            at = start
            pieces = None if total is None else -(-(total - start) // CHUNK_BYTES)
            for chunk in progress.track(_chunks(response), aside.name.removesuffix(".part"), total=pieces):
                at += len(chunk)
                if at > limit:
                    file.truncate(0)
                    raise DataError(f"more than {limit} bytes arrive.", where=url)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and at != total:
            raise ConnectionError(f"{at} of {total} bytes came")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK_BYTES):
            yield chunk
    except OSError as error:
        # Told apart from a disk that cannot be written: this one is worth another attempt.
        raise ConnectionError(str(error)) from error


def _expected(response: http.client.HTTPResponse, have: int, url: str) -> tuple[int, int | None]:
    """Where the answer's bytes belong, and the size of the whole file where it is told."""
    length = response.headers.get("Content-Length", "")
    if response.status != 206:
        # The server does not do ranges and sends all of it.
        return 0, int(length) if length.isdecimal() else None
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != have:
        raise DataError(
            "the server sends another range than was asked for.", where=url, remedy="Delete the .part file."
        )
    return have, int(match[2]) + 1 if match[3] == "*" else int(match[3])

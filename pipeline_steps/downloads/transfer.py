"""Fetch one file: resumed with HTTP ranges, retried with back-off, verified; a file with its final name is complete.

While it is fetched a file is called ``.<name>.part``; beside it ``.<name>.part.json`` keeps what the server said about
it (ETag or date), so that a resumed transfer never joins two versions of a file. A file that is there already is never
replaced: it may be somebody's only copy.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from urllib.parse import unquote, urlsplit

import requests
import urllib3

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.sources.expected import NOTHING_KNOWN, Expected, mismatch
from pipeline_steps.data.sources.space import part_of
from pipeline_steps.downloads.disk import is_disk_full
from pipeline_steps.downloads.parallel import go_on

CHUNK = 1 << 20
RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)", re.ASCII)
_CHEAP_TO_REPEAT = 100_000_000
"""Bytes that may always be thrown away and fetched again before a server is given up."""
Report = Callable[[int, int | None], None]
"""Called with bytes that are there so far and the total, where known."""


class _Retry(Exception):
    """A passing fault: try again, from where the file has come to."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class NotServed(UserError):
    """The server answers that it does not have the file or does not give it out: trying again is of no use."""


@dataclass(frozen=True)
class Patience:
    """How long a transfer goes on against faults."""

    retries: int = 8  # attempts in a row that leave the file no longer than it has ever been, before giving up
    first_wait: float = 1.0
    """Seconds before the first new attempt; doubled each time, with jitter, up to ``longest_wait``."""
    longest_wait: float = 120.0  # no wait is longer, whatever the server asks for (Retry-After)
    timeout: float = 60.0  # seconds without a byte after which a connection counts as broken


def _refuse_page(response: requests.Response, url: str, name: str) -> None:
    kind = response.headers.get("Content-Type", "")
    if "text/html" in kind and not name.endswith((".html", ".htm")):
        raise UserError(
            f"{url} answered with a web page ({kind}) instead of {name}: an error page or a login page; "
            "check the address, the proxy, or set a mirror in data.download.mirrors"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _notes_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _request(session: requests.Session, url: str, part: Path, patience: Patience) -> requests.Response:
    """Ask for the rest of the file, or for all of it if what is there belongs to another version."""
    notes = _notes_of(part)
    headers = {"Accept-Encoding": "identity"}
    have = _size(part)
    if have and notes.exists():
        version = json.loads(notes.read_text())
        if version["url"] == url and version["version"]:
            headers |= {"Range": f"bytes={have}-", "If-Range": version["version"]}
    try:
        return session.get(url, headers=headers, stream=True, timeout=patience.timeout)
    except requests.RequestException as error:
        raise _Retry(f"no answer ({type(error).__name__})") from None


def _check_status(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in RETRIED_STATUS:
        wait = response.headers.get("Retry-After", "")
        raise _Retry(f"status {status}", float(wait) if wait.isascii() and wait.isdigit() else None)
    if status not in (200, 206, 416):
        remedy = {404: "the address is wrong or the file was moved", 403: "access is refused", 401: "login required"}
        kind = NotServed if status in (401, 403, 404, 410) else UserError
        raise kind(
            f"{url} answered with status {status} ({remedy.get(status, response.reason)}); "
            "check config/sources.csv or set a mirror in data.download.mirrors"
        )


def _announced(response: requests.Response, part: Path) -> tuple[int, int | None]:
    """Byte at which the answer starts, and bytes of the whole file as far as the server says."""
    length = response.headers.get("Content-Length", "")
    rest = int(length) if length.isascii() and length.isdigit() else None
    if response.status_code == 200:
        return 0, rest
    start = _size(part)
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != start:
        part.unlink(missing_ok=True)
        raise _Retry("the server sent a different range than requested")
    return start, None if found[2] == "*" else int(found[2])


def _attempt(
    session: requests.Session, url: str, part: Path, expected: Expected, patience: Patience, report: Report, stop: Event
) -> None:
    """One connection: append what comes to ``part``; returns when the server has sent all that it announced."""
    with _request(session, url, part, patience) as response:
        _check_status(response, url)
        if response.status_code == 416:  # nothing is left to send, or what we have is longer than the file
            part.unlink(missing_ok=True)
            raise _Retry("the range was refused")
        _refuse_page(response, url, unquote(Path(urlsplit(url).path).name))
        start, total = _announced(response, part)
        if total is not None and (problem := expected.wrong_size(total)):
            raise _wrong_file(url, problem)  # before gigabytes of it come
        most = next((size for size in (expected.bytes, expected.most, total) if size is not None), None)
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        weak = version.startswith("W/")  # weak validators may not be used with ranges (RFC 9110, section 13.1.5)
        _notes_of(part).write_text(json.dumps({"url": url, "version": "" if weak else version}))
        with part.open("ab" if start else "wb") as file:
            done = start
            report(done, total)
            try:
                # Keep what came before a break; the length is checked below.
                response.raw.enforce_content_length = False
                while chunk := response.raw.read(CHUNK, decode_content=False):
                    go_on(stop)
                    file.write(chunk)
                    done += len(chunk)
                    report(done, total)
                    if most is not None and done > most:
                        break
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                ours = isinstance(error, OSError) and (is_disk_full(error) or error.errno == errno.EIO)  # our disk
                if ours or isinstance(error, InterruptedError):
                    raise
                raise _Retry(f"connection broke after {done} bytes ({type(error).__name__})") from None
        if most is not None and done > most:
            part.unlink()
            raise _Retry(f"the server sent more than {most} bytes")
        if total is not None and done < total:
            raise _Retry(f"connection ended after {done} of {total} bytes")


def _copy_local(source: Path, part: Path, report: Report, stop: Event) -> None:
    if not source.is_file():
        raise UserError(f"mirror file not found: {source}; check data.download.mirrors")
    total, done = source.stat().st_size, 0
    report(done, total)
    with source.open("rb") as reader, part.open("wb") as writer:
        while chunk := reader.read(CHUNK):
            go_on(stop)
            writer.write(chunk)
            done += len(chunk)
            report(done, total)


def _transfer(
    url: str,
    part: Path,
    expected: Expected,
    patience: Patience,
    report: Report,
    warn: Callable[[str], None],
    stop: Event,
) -> None:
    """Attempts until ``part`` is complete, as long as they get on: bytes that are thrown away again are no progress."""
    failures = received = last = 0
    furthest = _size(part)

    def count(done: int, total: int | None) -> None:
        nonlocal received, last
        received += max(0, done - last)
        last = done
        report(done, total)

    with requests.Session() as session:
        while expected.bytes is None or _size(part) != expected.bytes:
            last = _size(part)
            try:
                _attempt(session, url, part, expected, patience, count, stop)
                return
            except _Retry as fault:
                size = _size(part)
                failures = 1 if size > furthest else failures + 1
                furthest = max(furthest, size)
                if failures > patience.retries:
                    raise UserError(
                        f"{url}: gave up after {failures} attempts without progress: {fault}; start again to "
                        "continue, what has been downloaded is kept"
                    ) from None
                if received - size > max(_CHEAP_TO_REPEAT, furthest):
                    raise UserError(
                        f"{url}: gave up after {received - size} useless bytes: {fault}; the server "
                        "contradicts itself about the file: try again later or set a mirror in data.download.mirrors"
                    ) from None
                wait = patience.first_wait * 2 ** (failures - 1) * random.uniform(0.75, 1.25)
                wait = min(patience.longest_wait, wait if fault.wait is None else fault.wait)
                warn(f"{url}: {fault}; trying again in {wait:.1f} s")
                go_on(stop, wait)


def _wrong_file(url: str, problem: str) -> UserError:
    return UserError(
        f"{url}: the file {problem}; the server's file is damaged or a different one: try again later or set a mirror "
        "in data.download.mirrors (or fix config/sources.csv, if the publisher has changed the file)"
    )


def fetch(
    url: str,
    target: Path,
    expected: Expected = NOTHING_KNOWN,
    patience: Patience = Patience(),
    report: Report = lambda *_: None,
    warn: Callable[[str], None] = lambda *_: None,
    stop: Event | None = None,
) -> None:
    """Fetch ``url`` (HTTP(S), ``file://`` or a local path) to ``target``; an existing right file is kept.

    Only one process at a time may do this for a target, see :mod:`~pipeline_steps.downloads.locks`.

    Args:
        report: called with the bytes that are there and in all.
        warn: called with a line about every passing fault.
        stop: ends the transfer with InterruptedError when it is set; what has been downloaded is kept.

    Raises:
        NotServed: the server refuses, or does not have the file.
        UserError: another file is there already; refused or missing at the server, a web page instead of the file,
            wrong size (told from what the server announces, where it does) or checksum (the wrong file is removed), no
            progress after all retries (what was downloaded is kept and resumed by the next call), a server that has the
            same bytes fetched again and again.
    """
    stop = stop or Event()
    if target.is_file():
        if problem := mismatch(target, expected):
            raise UserError(f"{target} {problem}: it is damaged or a different file; delete it and start again")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    local = url.removeprefix("file://") if url.startswith("file://") else ("" if "://" in url else url)
    part = part_of(target)
    resumed = part.exists() and not local
    while True:
        if local:
            _copy_local(Path(unquote(local)), part, report, stop)
        else:
            _transfer(url, part, expected, patience, report, warn, stop)
        if not (problem := mismatch(part, expected)):
            break
        part.unlink()
        _notes_of(part).unlink(missing_ok=True)
        if not resumed:
            raise _wrong_file(url, problem)
        warn(f"{url}: the resumed file {problem}; starting over")
        resumed = False
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    _notes_of(part).unlink(missing_ok=True)

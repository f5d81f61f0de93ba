"""Fetch one file: resumed with HTTP ranges, retried with back-off, verified, and whole or absent under its name.

While it is fetched a file is called ``.<name>.part``; beside it ``.<name>.part.json`` keeps what the server said about
it (ETag or date), so that a resumed transfer never joins two versions of a file. A file that is there already is never
replaced: it may be somebody's only copy.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from urllib.parse import unquote, urlsplit

import requests
import urllib3

from pipeline_steps.common.errors import UserError

CHUNK = 1 << 20
RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}
Report = Callable[[int, int | None], None]
"""Called with bytes that are there so far and the total, where known."""


class _Retry(Exception):
    """A passing fault: try again, from where the file has come to."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Expected:
    """What is known about a file beforehand."""

    bytes: int | None = None
    md5: str = ""
    sha256_prefix: str = ""


@dataclass(frozen=True)
class Patience:
    """How long a transfer goes on against faults."""

    retries: int = 8
    """Attempts in a row without a new byte before giving up."""
    first_wait: float = 1.0
    """Seconds before the first new attempt; doubled each time, with jitter, up to ``longest_wait``."""
    longest_wait: float = 120.0
    timeout: float = 60.0
    """Seconds without a byte after which a connection counts as broken."""


def part_of(target: Path) -> Path:
    """Name of the unfinished file of ``target``."""
    return target.with_name(f".{target.name}.part")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def mismatch(path: Path, expected: Expected) -> str:
    """Why the file is not the expected one; empty if it is."""
    size = path.stat().st_size
    if expected.bytes is not None and size != expected.bytes:
        return f"has {size} bytes instead of {expected.bytes}"
    if expected.md5 and (found := _digest(path, "md5")) != expected.md5:
        return f"has MD5 {found} instead of {expected.md5}"
    if expected.sha256_prefix and not (found := _digest(path, "sha256")).startswith(expected.sha256_prefix):
        return f"has SHA-256 {found[:16]}... instead of {expected.sha256_prefix}..."
    return ""


def _refuse_page(response: requests.Response, url: str, name: str) -> None:
    kind = response.headers.get("Content-Type", "")
    if "text/html" in kind and not name.endswith((".html", ".htm")):
        raise UserError(
            f"{url} answered with a web page ({kind}) instead of {name}: an error or log-in page; "
            "check the address, the proxy, or set a mirror in data.download.mirrors"
        )


def _request(session: requests.Session, url: str, part: Path, patience: Patience) -> requests.Response:
    """Ask for the rest of the file, or for all of it if what is there belongs to another version."""
    notes = part.with_name(part.name + ".json")
    headers = {"Accept-Encoding": "identity"}
    have = part.stat().st_size if part.exists() else 0
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
        raise _Retry(f"status {status}", float(wait) if wait.isdigit() else None)
    if status not in (200, 206, 416):
        remedy = {404: "the address is wrong or the file was moved", 403: "access is refused", 401: "log-in is needed"}
        raise UserError(
            f"{url} answered with status {status} ({remedy.get(status, response.reason)}); "
            "check config/sources.csv or set a mirror in data.download.mirrors"
        )


def go_on(stop: Event, seconds: float = 0.0) -> None:
    """Wait for some seconds; raises InterruptedError as soon as the download is to stop."""
    if stop.wait(seconds):
        raise InterruptedError("the download was stopped")


def is_disk_full(error: OSError) -> bool:
    """Whether an error says that the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _attempt(session: requests.Session, url: str, part: Path, patience: Patience, report: Report, stop: Event) -> None:
    """One connection: append what comes to ``part``; returns when the server has sent all that it announced."""
    with _request(session, url, part, patience) as response:
        _check_status(response, url)
        if response.status_code == 416:  # nothing is left to send, or what we have is longer than the file
            part.unlink(missing_ok=True)
            raise _Retry("the range was refused")
        _refuse_page(response, url, unquote(Path(urlsplit(url).path).name))
        start = 0
        if response.status_code == 206:
            start = part.stat().st_size
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                part.unlink()
                raise _Retry("the server sent another range than asked for")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        weak = version.startswith("W/")  # weak validators may not be used with ranges (RFC 9110, section 13.1.5)
        notes = part.with_name(part.name + ".json")
        notes.write_text(json.dumps({"url": url, "version": "" if weak else version}))
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
            except InterruptedError:
                raise
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                if isinstance(error, OSError) and (is_disk_full(error) or error.errno == errno.EIO):
                    raise  # our disk, not the connection
                raise _Retry(f"connection broke after {done} bytes ({type(error).__name__})") from None
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
    url: str, part: Path, patience: Patience, report: Report, warn: Callable[[str], None], stop: Event
) -> None:
    failures = 0
    with requests.Session() as session:
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                return _attempt(session, url, part, patience, report, stop)
            except _Retry as fault:
                after = part.stat().st_size if part.exists() else 0
                failures = 1 if after > before else failures + 1
                if failures > patience.retries:
                    raise UserError(
                        f"{url}: gave up after {failures} attempts without progress: {fault}; what has come is kept, "
                        "start again to go on"
                    ) from None
                wait = min(patience.longest_wait, patience.first_wait * 2 ** (failures - 1))
                wait = fault.wait if fault.wait is not None else wait * random.uniform(0.75, 1.25)
                warn(f"{url}: {fault}; trying again in {wait:.1f} s")
                go_on(stop, wait)


def _finish(part: Path, target: Path) -> None:
    descriptor = os.open(part, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    part.replace(target)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


def ignore(*_: object) -> None:
    """A report or warning that nobody reads."""


def fetch(
    url: str,
    target: Path,
    expected: Expected = Expected(),
    patience: Patience = Patience(),
    report: Report = ignore,
    warn: Callable[[str], None] = ignore,
    stop: Event | None = None,
) -> None:
    """Fetch ``url`` (HTTP(S), ``file://`` or a local path) to ``target``; an existing right file is kept.

    Only one process at a time may do this for a target, see :mod:`~pipeline_steps.data.download.locks`.

    Args:
        url: where the file comes from.
        target: its name on the disk.
        expected: what is known about it.
        patience: how long to go on against faults.
        report: called with the bytes that are there and in all.
        warn: called with a line about every passing fault.
        stop: ends the transfer with InterruptedError when it is set; what has come is kept.

    Raises:
        UserError: another file is there already; refused or missing at the server, a web page instead of the file,
            wrong size or checksum (the wrong file is removed), no progress after all retries (what has come is kept
            and resumed by the next call).
    """
    stop = stop or Event()
    if target.is_file():
        problem = mismatch(target, expected)
        if problem:
            raise UserError(f"{target} {problem}: it is damaged or another file; delete it and start again")
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    local = url.removeprefix("file://") if url.startswith("file://") else ("" if "://" in url else url)
    part = part_of(target)
    resumed = part.exists() and not local
    while True:
        if local:
            _copy_local(Path(unquote(local)), part, report, stop)
        else:
            _transfer(url, part, patience, report, warn, stop)
        problem = mismatch(part, expected)
        if not problem:
            return _finish(part, target)
        part.unlink()
        part.with_name(part.name + ".json").unlink(missing_ok=True)
        if not resumed:
            raise UserError(
                f"{url}: the file {problem}; the server has another or a damaged file: try again later or set a mirror "
                "in data.download.mirrors (or mend config/sources.csv, if the publisher has changed the file)"
            )
        warn(f"{url}: the resumed file {problem}; starting once more from the beginning")
        resumed = False

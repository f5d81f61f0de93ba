"""What is known about a download beforehand, and whether a file is it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Expected:
    """What is known about a file beforehand: its size, or bounds of it, and checksums."""

    bytes: int | None = None
    md5: str = ""
    sha256_prefix: str = ""
    least: int = 0
    most: int | None = None

    def wrong_size(self, size: int) -> str:
        """Why a file of so many bytes is not the expected one; empty if it may be."""
        if self.bytes is not None and size != self.bytes:
            return f"has {size} bytes instead of {self.bytes}"
        if size < self.least:
            return f"has {size} bytes, fewer than the {self.least} that are expected at least"
        if self.most is not None and size > self.most:
            return f"has {size} bytes, more than the {self.most} that are expected at most"
        return ""


NOTHING_KNOWN = Expected()


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def mismatch(path: Path, expected: Expected) -> str:
    """Why the file is not the expected one; empty if it is."""
    if problem := expected.wrong_size(path.stat().st_size):
        return problem
    if expected.md5 and (found := _digest(path, "md5")) != expected.md5:
        return f"has MD5 {found} instead of {expected.md5}"
    if expected.sha256_prefix and not (found := _digest(path, "sha256")).startswith(expected.sha256_prefix):
        return f"has SHA-256 {found[:16]}... instead of {expected.sha256_prefix}..."
    return ""

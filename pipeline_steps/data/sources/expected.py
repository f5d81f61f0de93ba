"""What is known about a download beforehand, and whether a file is it: size, checksums, and counts of what it holds.

The counts tell a release and a split of LVIS where no checksum is published.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.lvis import decode_file


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


class _Id(msgspec.Struct, gc=False):
    id: int


class _Category(msgspec.Struct, gc=False):
    frequency: str = ""


class _File(msgspec.Struct):
    categories: list[_Category]
    images: list[_Id]
    annotations: list[_Id] = []


@dataclass(frozen=True)
class Contents:
    """Counts of a file; None: not known beforehand.

    ``r``, ``c`` and ``f`` are categories by their frequency letter.
    """

    categories: int | None = None
    r: int | None = None
    c: int | None = None
    f: int | None = None
    images: int | None = None
    annotations: int | None = None


_NAMES = {"r": "rare categories", "c": "common categories", "f": "frequent categories"}


def parse_contents(text: str, where: str) -> Contents | None:
    """``categories=1230 r=454 ...`` of the table of sources; None for nothing.

    Raises:
        UserError: an unknown name or no number; ``where`` (file and line) is named.
    """
    counts: dict[str, int] = {}
    for word in text.split():
        found = re.fullmatch(r"([a-z]+)=([0-9]+)", word)
        if not found or found[1] not in Contents.__dataclass_fields__:
            names = ", ".join(Contents.__dataclass_fields__)
            raise UserError(f"{where}: contents has {word!r}; expected NAME=NUMBER with the names {names}")
        counts[found[1]] = int(found[2])
    return Contents(**counts) if counts else None


def content_mismatch(path: Path, expected: Contents) -> str:
    """How the counts of an LVIS file differ from the expected ones; empty if they do not.

    Raises:
        UserError: the file is not a complete JSON file or has another structure.
    """
    file = decode_file(path, _File, "LVIS file")
    letters = Counter(category.frequency for category in file.categories)
    found = {
        "categories": len(file.categories),
        "images": len(file.images),
        "annotations": len(file.annotations),
        **{letter: letters[letter] for letter in "rcf"},
    }
    wrong = [
        f"{found[name]} {_NAMES.get(name, name)} instead of {number}"
        for name, number in vars(expected).items()
        if number is not None and found[name] != number
    ]
    return f"holds {', '.join(wrong)}: it is another release or split, or was changed" if wrong else ""

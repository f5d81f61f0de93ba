"""The table of sources (``config/sources.csv``) and mirrors that replace the public servers."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import require_file
from pipeline_steps.data.download.transfer import Expected

COLUMNS = [
    "group",
    "lvis_version",
    "file",
    "url",
    "bytes",
    "md5",
    "sha256_prefix",
    "unpack_into",
    "members",
    "images",
    "licence",
    "purpose",
]


@dataclass(frozen=True)
class Source:
    """One row of the table of sources."""

    group: str
    """What it belongs to: lvis, coco_annotations, coco_images, openimages_tables, openimages_images, weights."""
    lvis_version: str
    """Only for this LVIS release; empty for all."""
    file: str
    """Where the download is put, below ``datasets_root``."""
    url: str
    """Where it comes from."""
    bytes: int | None
    """Size, where known."""
    md5: str
    """MD5 checksum, where published."""
    sha256_prefix: str
    """First digits of the SHA-256 checksum, where published."""
    unpack_into: str
    """Folder below ``datasets_root`` into which an archive is unpacked; empty: no archive."""
    members: tuple[str, ...]
    """Members that are unpacked: files, or folders with a slash at the end."""
    images: int | None
    """Images that the unpacked folder must hold."""
    licence: str
    """Licence as stated by the publisher."""
    purpose: str
    """What the recipe uses it for."""
    others: tuple[str, ...] = ()
    """Further members of the archive, which are somebody else's task: the archive is kept until they are there."""

    @property
    def expected(self) -> Expected:
        """What is known about the downloaded file."""
        return Expected(self.bytes, self.md5, self.sha256_prefix)

    def matching(self, pattern: str) -> Source | None:
        """This source as far as a file name pattern asks for it: by the download's name, or by that of a member."""
        if fnmatch(Path(self.file).name, pattern):
            return self
        wanted = tuple(member for member in self.members if fnmatch(Path(member).name, pattern))
        others = tuple(member for member in self.members if member not in wanted)
        return replace(self, members=wanted, others=others) if wanted else None

    def targets(self, root: Path) -> list[Path]:
        """Files and folders that exist after the download: the unpacked members, or the file itself."""
        if self.unpack_into:
            return [root / self.unpack_into / member for member in self.members]
        return [root / self.file]


def _whole_number(text: str, column: str, line: int, path: Path) -> int | None:
    if not text:
        return None
    if not text.isdigit():
        raise UserError(f"{path}, line {line}: {column} is {text!r}; expected a whole number or nothing")
    return int(text)


def read_sources(path: str | Path) -> list[Source]:
    """Read the table of sources.

    Raises:
        UserError: a column is missing or a number is malformed; file and line are named.
    """
    path = require_file(path, "table of sources", "check `data.download.sources`")
    sources = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
        if missing:
            raise UserError(f"{path}: columns missing: {', '.join(missing)}")
        for line, row in enumerate(reader, start=2):
            if None in row or None in row.values():
                raise UserError(f"{path}, line {line}: expected {len(COLUMNS)} columns")
            sources.append(
                Source(
                    **{
                        **{column: row[column].strip() for column in COLUMNS},
                        "bytes": _whole_number(row["bytes"], "bytes", line, path),
                        "images": _whole_number(row["images"], "images", line, path),
                        "members": tuple(member for member in row["members"].split(";") if member),
                    }
                )
            )
    return sources


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """``url`` with its beginning replaced by the mirror of the longest matching key.

    Args:
        url: public address.
        mirrors: beginnings of addresses and what stands for them: another address, or a local folder
            (with or without ``file://``).
    """
    matching = [start for start in mirrors if url.startswith(start)]
    if not matching:
        return url
    start = max(matching, key=len)
    rest = url[len(start) :]
    target = mirrors[start]
    separator = "" if target.endswith("/") or rest.startswith("/") or not rest else "/"
    return f"{target}{separator}{rest}"

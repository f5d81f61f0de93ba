"""The table of sources (``config/sources.csv``) and mirrors that replace the public servers.

Sizes of the shipped table: as its publishers' servers and the git-annex keys of public copies give them; of ImageNet
weights in the rounded form of torchvision's ``_file_size`` and timm's model index. Those of the LVIS v0.5 archives were
never published: they are bounded by those of v1, which holds more, and what is in them is counted (``contents``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import csv_records, require_file
from pipeline_steps.data.sources.expected import Contents, Expected, parse_contents
from pipeline_steps.recipe.base import LVIS_VERSIONS
from pipeline_steps.recipe.load import shipped_or_own

GROUPS = ("lvis", "coco_annotations", "coco_images", "openimages_tables", "openimages_images", "weights")
"""What sources belong to."""

COLUMNS = (
    "group", "lvis_version", "file", "url", "bytes", "md5", "sha256_prefix", "unpack_into", "members", "images",
    "licence", "purpose",
)  # fmt: skip
"""Columns that a table must have; ``contents`` may follow."""

ROUNDED = 0.02
"""Greatest relative deviation of a size that is published in rounded form."""


@dataclass(frozen=True)
class Source:
    """One row of the table of sources."""

    group: str  # what it belongs to, one of :data:`GROUPS`
    lvis_version: str  # only for this LVIS release; empty for all
    file: str  # where the download is put, below ``datasets_root``
    url: str  # where it comes from
    bytes: int | None  # size, where known exactly
    md5: str  # MD5 checksum, where published
    sha256_prefix: str  # first digits of the SHA-256 checksum, where published
    unpack_into: str  # folder below ``datasets_root`` into which an archive is unpacked; empty: no archive
    members: tuple[str, ...]  # members that are unpacked: files, or folders with a slash at the end
    images: int | None  # images that the unpacked folder must hold
    licence: str  # licence as stated by the publisher
    purpose: str  # what the recipe uses it for
    contents: Contents | None = None  # what the unpacked JSON file must hold
    least: int = 0  # bytes that the file has at least, where the size is not known exactly
    most: int | None = None  # bytes that it has at most
    others: tuple[str, ...] = ()
    """Further members of the archive, which are somebody else's task: the archive is kept until they are there."""

    @property
    def expected(self) -> Expected:
        """What is known about the downloaded file."""
        return Expected(self.bytes, self.md5, self.sha256_prefix, self.least, self.most)

    @property
    def planned_bytes(self) -> int:
        """Size for plans: as known, or the most that it can be; 0 if nothing is known."""
        return self.bytes if self.bytes is not None else self.most or 0

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
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{path}, line {line}: {column} is {text!r}; expected a whole number or nothing")
    return int(text)


def _size(text: str, line: int, path: Path) -> dict[str, int | None]:
    """``123`` is exact, ``~123`` as published in rounded form, ``<123`` unknown but not more; nothing: unknown."""
    mark = text[:1] if text[:1] in ("~", "<") else ""
    number = text.removeprefix(mark)
    if mark and not number:
        raise UserError(f"{path}, line {line}: bytes is {text!r}; expected a number after {mark}")
    value = _whole_number(number, "bytes", line, path)
    if value is None or not mark:
        return {"bytes": value}
    about = round(value * ROUNDED)
    return {"bytes": None, "most": value} if mark == "<" else {
        "bytes": None, "least": value - about, "most": value + about
    }  # fmt: skip


def _check_row(row: Mapping[str, str], line: int, path: Path) -> None:
    """Refuse a row that no recipe would ask for, or that leads out of ``datasets_root``."""
    for column, known in (("group", GROUPS), ("lvis_version", ("", *LVIS_VERSIONS))):
        if row[column] not in known:
            near = get_close_matches(row[column], known, 1, 0.5)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            listed = ", ".join(name or "nothing" for name in known)
            raise UserError(f"{path}, line {line}: {column} is {row[column]!r}; expected {listed}{meant}")
    places = [("file", row["file"]), ("unpack_into", row["unpack_into"])]
    places += [("members", member) for member in row["members"].split(";")]
    for column, place in places:
        parts = PurePosixPath(place).parts
        if parts[:1] == ("/",) or ".." in parts or (column == "file" and not parts):
            raise UserError(f"{path}, line {line}: {column} is {place!r}; expected a path below datasets_root")


def read_sources(path: str | Path) -> list[Source]:
    """Read the table of sources.

    Raises:
        UserError: a column is missing or occurs twice; a number is malformed; an unknown group or LVIS release; a path
            out of ``datasets_root``; file and line are named.
    """
    path = require_file(shipped_or_own(path), "table of sources", "check `data.download.sources`")
    sources = []
    for line, row in csv_records(path, COLUMNS, ["contents"]):
        _check_row(row, line, path)
        values: dict[str, Any] = {
            **{column: row[column] for column in COLUMNS},
            **_size(row["bytes"], line, path),
            "images": _whole_number(row["images"], "images", line, path),
            "members": tuple(member for member in row["members"].split(";") if member),
            "contents": parse_contents(row.get("contents", ""), f"{path}, line {line}"),
        }
        sources.append(Source(**values))
    return sources


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """``url`` with its beginning replaced by the mirror of the longest matching key.

    What stands for the beginning of an address is another one, or a local folder (with or without ``file://``).
    """
    matching = [start for start in mirrors if url.startswith(start)]
    if not matching:
        return url
    start = max(matching, key=len)
    rest = url[len(start) :]
    target = mirrors[start]
    separator = "" if target.endswith("/") or rest.startswith("/") or not rest else "/"
    return f"{target}{separator}{rest}"

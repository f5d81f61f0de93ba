"""What an LVIS file holds, as counts: tells a release and a split where no checksum is published."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.lvis import decode_file


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

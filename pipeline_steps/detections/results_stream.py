"""Reading the items of a JSON list of any size one by one, with memory for one piece of the file.

Accepts what Python's ``json`` accepts, because the official evaluator reads with it: NaN and Infinity included.
"""

from __future__ import annotations

import codecs
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

PIECE_BYTES = 1 << 22
LONGEST_ITEM = 1 << 26
"""Characters; a longer item is a missing quotation mark rather than a result."""

_SPACE = " \t\n\r"
_CUT_HERE = ("true", "false", "null", "NaN", "Infinity", "-Infinity", ".", "e+", "e-", "E+", "E-")
"""What a value or number may be in the middle of where a piece ends."""


class DamagedResults(Exception):
    """The file cannot be read to its end. ``kind`` is ``truncated``, ``syntax``, ``not_list`` or ``archive``."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@contextmanager
def open_results(path: Path) -> Iterator[BinaryIO]:
    """Open a results file, or the one file in a zip archive (recognised by content, not by name).

    Raises:
        DamagedResults: an archive that is damaged or holds not exactly one file.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
        if not zipped:
            file.seek(0)
            yield file
            return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise DamagedResults("archive", f"holds {len(names)} files, expected one: {', '.join(names[:5])}")
            with archive.open(names[0]) as member:
                yield cast(BinaryIO, member)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise DamagedResults("archive", f"is damaged: {error}") from None
    except (RuntimeError, NotImplementedError) as error:  # a password, or a method that Python does not know
        raise DamagedResults("archive", f"cannot be unpacked: {error}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedResults("archive", f"is damaged: {error}") from None  # bzip2 says it so


class _Text:
    """The unread part of the file that is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._dropped = 0
        self.text, self.position, self.ended = "", 0, False

    def fill(self) -> None:
        """Drop what was read and append the next piece; sets ``ended`` when there is none."""
        piece = self._file.read(PIECE_BYTES)
        try:
            decoded = self._decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            kind = "syntax" if piece else "truncated"
            raise DamagedResults(kind, f"is not UTF-8 text ({error.reason})") from None
        self.ended = not piece
        self._dropped += self.position
        self.text, self.position = self.text[self.position :] + decoded, 0

    def peek(self) -> str:
        """The next character that is no white space, unread; empty at the end of the file."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in _SPACE:
                self.position += 1
            if self.position < len(self.text) or self.ended:
                return self.text[self.position : self.position + 1]
            self.fill()

    @property
    def place(self) -> str:
        return f"character {self._dropped + self.position:,}"


def iter_items(file: BinaryIO) -> Iterator[Any]:
    """The items of the list that ``file`` holds.

    Raises:
        DamagedResults: after the items before the damage were given.
    """
    source = _Text(file)
    scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # undocumented, and all that is needed
    first = source.peek()
    if first != "[":
        _refuse_start(source, first)
    source.position += 1
    count = 0
    while (following := source.peek()) != "]" or count:
        if not following:
            raise DamagedResults("truncated", f"ends after {count:,} results without closing the list")
        yield _scan_item(source, scan, count)
        count += 1
        following = source.peek()
        if following == "]":
            break
        if following != ",":
            kind = "syntax" if following else "truncated"
            raise DamagedResults(kind, f"has {following!r} instead of , or ] after {count:,} results at {source.place}")
        source.position += 1
    source.position += 1
    if source.peek():
        raise DamagedResults("syntax", f"goes on after the end of the list at {source.place}")


def _refuse_start(source: _Text, first: str) -> NoReturn:
    if not first:
        raise DamagedResults("truncated", "is empty")
    if first == "{":
        keys = ", ".join(f'"{key}"' for key in ("annotations", "results") if f'"{key}"' in source.text[:1000])
        raise DamagedResults("not_list", f"holds an object{f' (with {keys})' if keys else ''}, not a list of results")
    if first in '"-0123456789tfnNI':
        raise DamagedResults("not_list", "holds a single value, not a list of results")
    raise DamagedResults("syntax", f"is not JSON: it starts with {first!r}")


def _is_cut(rest: str, reason: str) -> bool:
    """Whether the parser stopped because the text ends (there may be more in the file), not because it is wrong."""
    if reason.startswith("Unterminated string"):
        return True
    if reason.startswith("Invalid \\"):
        return re.fullmatch(r"\\?(u[0-9a-fA-F]{0,4})?", rest) is not None
    return any(literal.startswith(rest) for literal in _CUT_HERE)


def _scan_item(source: _Text, scan: Any, count: int) -> Any:
    while True:
        try:
            item, end = scan(source.text, source.position)
        except (json.JSONDecodeError, StopIteration) as error:
            where = error.pos if isinstance(error, json.JSONDecodeError) else error.value
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "Expecting value"
            if not _is_cut(source.text[where:], reason) or len(source.text) - source.position > LONGEST_ITEM:
                raise DamagedResults("syntax", f"is not JSON in result {count:,} at {source.place}: {reason}") from None
            if source.ended:
                raise DamagedResults("truncated", f"ends inside result {count:,}: {reason}") from None
            source.fill()
            continue
        except ValueError as error:  # Python limits the digits of an integer
            raise DamagedResults("syntax", f"cannot be read in result {count:,}: {error}") from None
        except RecursionError:
            raise DamagedResults("syntax", f"is nested too deeply in result {count:,}") from None
        # A number may go on in the next piece; so may one with its point or exponent at the end of this one.
        goes_on = (
            source.text[end : end + 1] in ("", ".", "e", "E") and len(source.text) - source.position < LONGEST_ITEM
        )
        if source.ended or not goes_on:
            source.position = end
            return item
        source.fill()

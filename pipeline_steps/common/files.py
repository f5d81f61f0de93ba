"""Reading files with errors that name the file, digests of files, and which files a step has read."""

import csv
import difflib
import gc
import hashlib
import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import orjson

from pipeline_steps.common.errors import UserError

_inputs: ContextVar[dict[Path, None] | None] = ContextVar("inputs", default=None)


@contextmanager
def noted_inputs() -> Iterator[dict[Path, None]]:
    """The files that are given to :func:`note_input` in the block, as keys in the order of their first reading."""
    inputs: dict[Path, None] = {}
    token = _inputs.set(inputs)
    try:
        yield inputs
    finally:
        _inputs.reset(token)


def note_input(path: str | Path) -> Path:
    """Note that a file is read, for the manifest of the step; returns it.

    To be called where a file is opened (:func:`require_file` does), so that no list of a step's inputs can be wrong.
    Not noted are images, which annotations name, and what tells about runs: manifests, benchmarks, the graph of rules.
    These change with every run, whether results do or not.
    """
    inputs = _inputs.get()
    if inputs is not None:
        inputs[Path(path)] = None
    return Path(path)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Pause the garbage collector: bulk loading of many small objects is 2-4 times faster without it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def nearest_file(path: str | Path) -> str:
    """``; did you mean ...?`` with a name on the disk for the first part of ``path`` that is not there; or nothing."""
    wanted = Path(path)
    for folder in reversed(wanted.parents):
        missing = wanted.relative_to(folder).parts[0]
        if folder.is_dir() and not (folder / missing).exists():
            near = difflib.get_close_matches(missing, sorted(entry.name for entry in folder.iterdir()), n=1)
            return f"; did you mean {folder / near[0]}?" if near else ""
    return ""


def require_file(path: str | Path, what: str, remedy: str = "check the path", note: bool = True) -> Path:
    """Return ``path`` as a Path and note it as an input, or raise UserError if it is not an existing file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} not found: {path} ({remedy}{nearest_file(path)})")
    return note_input(path) if note else path


def incomplete_json(what: str, content: bytes, error: Exception) -> UserError:
    """The error for a file that is not complete JSON; ``what`` names it."""
    return UserError(
        f"{what} is not complete JSON: {error} (file has {len(content)} bytes; "
        "it is truncated or damaged: delete it, then make or download it again)"
    )


def read_json(path: str | Path, what: str = "JSON file", remedy: str = "check the path", note: bool = True) -> Any:
    """Read a JSON file, and note it as an input.

    Raises:
        UserError: the file is missing, empty, truncated or not JSON; the message names file and position.
    """
    path = require_file(path, what, remedy, note)
    content = path.read_bytes()
    try:
        with without_garbage_collection():
            return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise incomplete_json(f"{what} {path}", content, error) from None


def check_header(path: Path, names: Sequence[str], required: Iterable[str]) -> None:
    """Refuse a table that lacks a column or has one of the required ones twice.

    Raises:
        UserError: names the columns, and the header that was found.
    """
    required = list(required)
    found = f"the header is {','.join(names[:13])!r}"
    if missing := [name for name in required if name not in names]:
        raise UserError(f"{path}: missing columns: {', '.join(missing)}; {found}")
    if repeated := sorted({name for name in required if list(names).count(name) > 1}):
        raise UserError(f"{path}: duplicate columns: {', '.join(repeated)}; {found}")


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row of a CSV file.

    Raises:
        UserError: it is no text, or no CSV.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            for cells in reader:
                yield reader.line_num, cells
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: not valid CSV after line {reader.line_num}: {error}") from None


def csv_records(
    path: Path, required: Sequence[str], optional: Iterable[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells by column, without white space around them, of each row of a CSV file with a header.

    Raises:
        UserError: no CSV file; a column is missing or occurs twice; a row has more or fewer cells than the header.
    """
    rows = csv_rows(path)
    _, names = next(rows, (0, []))
    check_header(path, names, [*required, *(set(optional) & set(names))])
    for line, cells in rows:
        if cells and len(cells) != len(names):
            raise UserError(f"{path}, line {line}: expected {len(names)} cells as in the header, found {len(cells)}")
        if cells:
            yield line, {name: cell.strip() for name, cell in zip(names, cells)}


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files of a folder; empty if there is no such folder."""
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def existing_folder(folder: Path) -> Path:
    """``folder``, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def free_space(folder: Path) -> int:
    """Bytes free where ``folder`` is, or will be."""
    return shutil.disk_usage(existing_folder(folder)).free

"""Outputs appear complete or not at all: written under a temporary name beside the target, then renamed."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MARK = ".unfinished-"


def _temporary(path: Path) -> Path:
    """Temporary name beside ``path``, so that the final rename stays within one file system.

    The target's suffixes are kept at the end: writers that choose a format by suffix work unchanged.
    """
    return path.with_name(f".{path.stem}{_MARK}{os.uname().nodename}-{os.getpid()}{path.suffix}")


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_stale(path: Path) -> None:
    """Remove what killed runs on this host left behind for the target ``path``."""
    start = f".{path.stem}{_MARK}{os.uname().nodename}-"
    for leftover in path.parent.glob(f"{start}*"):
        process_id = leftover.name[len(start) :].removesuffix(".old").removesuffix(path.suffix)
        if process_id.isdigit() and not _is_running(int(process_id)):
            _remove(leftover)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file name; rename it to ``path`` when the block ends well, remove it otherwise.

    Parent folders are made. Leftovers of earlier killed runs for the same target are removed first.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(target)
    temporary = _temporary(target)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(target)
    finally:
        _remove(temporary)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Like :func:`atomic_output` for a folder: yields an empty temporary folder that becomes ``path``.

    An existing folder ``path`` is replaced as a whole.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(target)
    temporary = _temporary(target)
    _remove(temporary)
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            old = temporary.with_name(f"{temporary.name}.old")
            target.replace(old)
            temporary.replace(target)
            _remove(old)
        else:
            temporary.replace(target)
    finally:
        _remove(temporary)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Write JSON atomically; keys keep their order; NaN is refused because JSON has none."""
    with atomic_output(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=indent, allow_nan=False)
        file.write("\n")

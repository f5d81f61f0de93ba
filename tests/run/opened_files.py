"""Which files a piece of code opens, as the kernel sees it: Linux' inotify, whatever library does the opening."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_OPEN, IN_ISDIR, IN_Q_OVERFLOW = 0x20, 0x40000000, 0x4000
HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def opened_files(folder: Path) -> Iterator[set[Path]]:
    """The files that lay below ``folder`` before the block and are opened in it; complete when the block has ended."""
    before = {path for path in folder.rglob("*") if path.is_file()}
    found: set[Path] = set()
    watcher = _libc.inotify_init1(os.O_NONBLOCK)
    assert watcher >= 0, os.strerror(ctypes.get_errno())
    try:
        watched = {}
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            watched[_libc.inotify_add_watch(watcher, os.fsencode(path), IN_OPEN)] = path
        assert min(watched) >= 0, os.strerror(ctypes.get_errno())
        yield found
        found |= {watched[number] / name for number, name in _events(watcher)} & before
    finally:
        os.close(watcher)


def _events(watcher: int) -> Iterator[tuple[int, str]]:
    """Number of the folder and name of the file for each file that was opened."""
    while True:
        try:
            content = os.read(watcher, 1 << 20)
        except BlockingIOError:
            return
        start = 0
        while start < len(content):
            number, mask, _, length = HEADER.unpack_from(content, start)
            assert not mask & IN_Q_OVERFLOW, "more events than the kernel keeps"
            start += HEADER.size
            if not mask & IN_ISDIR:
                yield number, os.fsdecode(content[start : start + length].rstrip(b"\0"))
            start += length

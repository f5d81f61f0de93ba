"""One process at a time for one download: others wait until it is done, and then find its work on the disk.

The lock is the kernel's (flock), so that it ends with its process: a lock file that a killed process left behind stops
nobody.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TextIO

_LOOK_AGAIN = 0.5
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


def _is_current(file: TextIO, lock: Path) -> bool:
    """Whether ``file`` is still the one at ``lock``: the holder before us removes it when it is done."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), lock.stat())
    except FileNotFoundError:
        return False


def _acquire(lock: Path, what: str, tell: Callable[[str], None], stop: Event) -> TextIO:
    told = False
    while True:
        file = lock.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                file.seek(0)
                holder = file.read().strip()
                tell(f"{what} is being downloaded by another process{holder and f' ({holder})'}: waiting for it")
                told = True
            file.close()
            if stop.wait(_LOOK_AGAIN):
                raise InterruptedError(what) from None
            continue
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            tell(f"{lock.parent} is on a file system without locks: see to it that {what} is downloaded only once")
            return file
        if _is_current(file, lock):
            return file
        file.close()


@contextmanager
def exclusive(target: Path, tell: Callable[[str], None], stop: Event) -> Iterator[None]:
    """Hold the lock of ``target`` (``.<name>.lock`` beside it), waiting for whoever holds it.

    Args:
        target: file or folder that is being made; what is there has to be looked at again inside.
        tell: called once with a line if somebody else holds the lock.
        stop: ends the waiting.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f".{target.name}.lock")
    file = _acquire(lock, str(target), tell, stop)
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()

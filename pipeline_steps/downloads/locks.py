"""One process at a time for one download: others wait until it is done, and then find its work on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

_LOOK_AGAIN = 0.5
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def exclusive(target: Path, tell: Callable[[str], None], stop: Event) -> Iterator[None]:
    """Hold the lock of ``target`` (``.<name>.lock`` beside it), waiting for whoever holds it.

    It is the kernel's lock, which ends with its process: a lock file that a killed process left behind stops nobody.

    Args:
        target: file or folder that is being made; what is there has to be looked at again inside.
        tell: called once with a line if somebody else holds the lock, or if the file system has none.
        stop: ends the waiting with InterruptedError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            holder = ""
            with suppress(FileNotFoundError):
                holder = path.read_text()
            tell(f"{target} is being downloaded by another process{holder and f' ({holder})'}: waiting for it")
            lock.acquire(poll_interval=_LOOK_AGAIN, cancel_check=stop.is_set)
    except Timeout:
        raise InterruptedError(str(target)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        tell(f"{target.parent} is on a file system without locks: see to it that {target} is downloaded only once")
    try:
        path.write_text(f"process {os.getpid()} on {os.uname().nodename}")
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()

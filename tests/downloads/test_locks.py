"""The lock of one download: who waits, for how long, and what happens where there are no locks."""

from __future__ import annotations

import errno
import fcntl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline_steps.downloads.locks import exclusive


def test_waiting_ends_when_the_download_is_to_stop_and_the_holder_keeps_its_lock(tmp_path):
    stop, told = threading.Event(), []

    def tell(line: str) -> None:
        told.append(line)
        stop.set()

    def wait() -> None:
        with pytest.raises(InterruptedError), exclusive(tmp_path / "file", tell, stop):
            pytest.fail("two hold one lock")

    with exclusive(tmp_path / "file", print, threading.Event()), ThreadPoolExecutor() as pool:
        pool.submit(wait).result()
        assert (tmp_path / ".file.lock").exists()
    assert list(tmp_path.iterdir()) == []
    assert len(told) == 1
    assert "waiting for it" in told[0]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, number):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    told: list[str] = []
    with exclusive(tmp_path / "file", told.append, threading.Event()):
        pass
    assert list(tmp_path.iterdir()) == []
    assert len(told) == 1
    assert "file system without locks" in told[0]


def test_other_errors_of_a_lock_are_not_hidden(tmp_path, monkeypatch):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="broken disk"), exclusive(tmp_path / "file", print, threading.Event()):
        pytest.fail("not locked")

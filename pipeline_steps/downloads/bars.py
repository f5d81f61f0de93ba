"""Progress of one file: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

from pipeline_steps.common.progress import format_bytes, format_duration

SECONDS_BETWEEN_LINES = 15.0


class FileBar:
    """Shows bytes done and in all, rate and time left of one file; several at once do not get in each other's way."""

    def __init__(self, name: str, total: int | None, position: int) -> None:
        self.name = name
        self._done, self._total = 0, total
        self._first: int | None = None
        self._start = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(desc=name, total=total, unit="B", unit_scale=True, position=position, leave=False)

    def __enter__(self) -> FileBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if error is None and self._first is not None:
            seconds = max(time.monotonic() - self._start, 1e-3)
            rate = format_bytes((self._done - self._first) / seconds)
            self.tell(f"{self.name}: {format_bytes(self._done)}, {rate}/s, done in {format_duration(seconds)}")

    def report(self, done: int, total: int | None) -> None:
        """Take note of the bytes that are there; fewer than before means that the file was started again."""
        self._total = self._total or total
        if self._first is None or done < self._done:
            self._first, self._start = done, time.monotonic()
        self._done = done
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.initial = self._first
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.tell(self._line())

    def _line(self) -> str:
        rate = (self._done - (self._first or 0)) / max(time.monotonic() - self._start, 1e-3)
        line = f"{self.name}: {format_bytes(self._done)}"
        if self._total:
            line += f" of {format_bytes(self._total)} ({self._done / self._total:.0%})"
        line += f", {format_bytes(rate)}/s"
        if self._total and rate:
            line += f", {format_duration((self._total - self._done) / rate)} left"
        return line

    @staticmethod
    def tell(message: str) -> None:
        """Print a line without breaking the bars."""
        tqdm.write(message, file=sys.stderr)
        sys.stderr.flush()

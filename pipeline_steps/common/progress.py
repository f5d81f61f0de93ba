"""Progress lines for long work: done, total, rate and time left, on standard error, at bounded intervals."""

import sys
import time
from typing import TextIO


def format_duration(seconds: float) -> str:
    """``75`` -> ``1m15s``, ``3700`` -> ``1h01m``."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Progress:
    """Prints ``predicting: 120/300 images, 8.3/s, 22s left`` every ``interval`` seconds and at the end."""

    def __init__(self, what: str, total: int, unit: str, interval: float = 5.0, stream: TextIO | None = None) -> None:
        self.what, self.total, self.unit, self.interval = what, total, unit, interval
        self.stream = stream or sys.stderr
        self.done = 0
        self._start = self._last_line = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more units as done; print a line if one is due or the work is complete."""
        self.done += count
        now = time.monotonic()
        if now - self._last_line < self.interval and self.done != self.total:
            return
        self._last_line = now
        elapsed = max(now - self._start, 1e-9)
        rate = self.done / elapsed
        if self.done >= self.total:
            timing = f"done in {format_duration(elapsed)}"
        else:
            timing = f"{format_duration((self.total - self.done) / rate)} left" if rate else "starting"
        suffix = f", {note}" if note else ""
        line = f"{self.what}: {self.done}/{self.total} {self.unit}, {rate:.3g}/s, {timing}{suffix}"
        print(line, file=self.stream, flush=True)


def format_bytes(count: float) -> str:
    """``1234567`` -> ``1.2 MB``."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"

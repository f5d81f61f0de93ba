"""Stopping in good order: signals and the time budget; and what to do when the memory runs out."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe.training import Training

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def _process_start() -> float:
    """When this process was started, on the scale of ``time.monotonic()``: importing may have taken a minute since."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age


_START = _process_start()


class StopRequest:
    """Whether the training should save and stop after the present iteration.

    Reasons are a signal (SIGTERM and SIGUSR1 from a cluster, SIGINT from a keyboard; a second SIGINT interrupts at
    once) or a time budget. From the budget, counted from the start of the process, the time is kept back that saving
    takes: two minutes or a tenth of the budget, whichever is less, and twice the longest checkpoint and iteration seen.
    """

    def __init__(self, stop_before_minutes: float | None = None, start: float = _START) -> None:
        self.reason = ""
        self.slowest_iteration = 0.0
        self.slowest_checkpoint = 0.0
        self._start = start
        self._budget = None if stop_before_minutes is None else stop_before_minutes * 60

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason:
            raise KeyboardInterrupt
        self.reason = f"received {signal.Signals(number).name}"

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Handle the signals inside the block."""
        previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def note(self, iteration: float = 0.0, checkpoint: float = 0.0) -> None:
        """Note how many seconds an iteration or saving a checkpoint took."""
        self.slowest_iteration = max(self.slowest_iteration, iteration)
        self.slowest_checkpoint = max(self.slowest_checkpoint, checkpoint)

    def seconds_left(self) -> float:
        """Seconds until a checkpoint has to be begun; infinite without a budget."""
        if self._budget is None:
            return float("inf")
        kept_back = min(120.0, 0.1 * self._budget) + 2 * (self.slowest_checkpoint + self.slowest_iteration)
        return self._budget - kept_back - (time.monotonic() - self._start)

    def wanted(self) -> bool:
        """Whether to stop now; ``reason`` then says why."""
        if not self.reason and self._budget is not None and self.seconds_left() <= 0:
            self.reason = f"time budget of {self._budget / 60:g} minutes"
        return bool(self.reason)


@contextmanager
def memory_explained(training: Training, rank: int) -> Iterator[None]:
    """Turn running out of memory into a message with the settings that help."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        smaller = "training.max_images_per_gpu" if training.max_images_per_gpu > 1 else "the image sizes"
        raise UserError(
            f"the GPU of process {rank} is out of memory with {training.max_images_per_gpu} images at once, "
            f"shorter edge up to {max(training.augmentation.shorter_edge)} and longer edge up to "
            f"{training.augmentation.longer_edge}: lower {smaller} first (the batch stays the same, a saved checkpoint "
            "can be continued); then set training.activation_checkpointing, or lower shorter_edge and longer_edge of "
            f"training.augmentation. ({str(error).splitlines()[0]})"
        ) from None
    except RuntimeError as error:
        text = str(error)
        if "DataLoader worker" in text:
            raise UserError(
                f"a loading process ended unexpectedly ({text.splitlines()[0]}); usually the memory of the job or "
                "/dev/shm was used up: lower training.loader_workers or raise compute.memory_gb"
            ) from None
        if "can't allocate memory" in text:
            raise UserError(
                f"out of memory: raise compute.memory_gb, or lower training.max_images_per_gpu ({text.splitlines()[0]})"
            ) from None
        raise

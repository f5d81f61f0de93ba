"""Many downloads at once that end at once: on an interrupt nobody waits for the gigabytes that are still to come."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from threading import Event, Thread
from typing import TypeVar

from pipeline_steps.common.errors import UserError

Item = TypeVar("Item")
_SECONDS_TO_TIDY_UP = 1.0


def go_on(stop: Event, seconds: float = 0.0) -> None:
    """Wait for some seconds; raises InterruptedError as soon as the download is to stop."""
    if stop.wait(seconds):
        raise InterruptedError("the download was stopped")


def in_parallel(work: Callable[[Item], None], items: Iterable[Item], threads: int, stop: Event) -> list[UserError]:
    """Call ``work`` for every item, several at once.

    Args:
        work: looks at ``stop`` now and then and raises when it is set.
        items: what to work on, in this order.
        threads: how many at once.
        stop: set when the rest is to be left: on an interrupt, or on any error but UserError.

    Returns:
        UserErrors of items; the other items were done all the same.
    """
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    count = 0
    for item in items:
        waiting.put(item)
        count += 1

    def serve() -> None:
        while not stop.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                work(item)
                outcomes.put(None)
            except BaseException as error:  # it is raised again in the main thread
                outcomes.put(error)

    # Daemons: a thread that waits for a silent server does not keep the process alive after an interrupt.
    workers = [Thread(target=serve, daemon=True) for _ in range(min(threads, count))]
    errors: list[UserError] = []
    try:
        for worker in workers:
            worker.start()
        for _ in range(count):
            outcome = outcomes.get()
            if isinstance(outcome, UserError):
                errors.append(outcome)
            elif outcome is not None:
                raise outcome
    except BaseException:
        stop.set()
        end = time.monotonic() + _SECONDS_TO_TIDY_UP
        for worker in workers:
            if worker.is_alive():
                worker.join(max(0.0, end - time.monotonic()))
        raise
    return errors

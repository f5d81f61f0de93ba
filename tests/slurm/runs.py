"""Runs of the workflow on a Slurm cluster, and waiting for what happens in them."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

from tests.slurm.cluster import Cluster
from tests.workflow.checkout import Checkout

Value = TypeVar("Value")


def wait_for(what: str, condition: Callable[[], Value], seconds: float = 900, interval: float = 0.1) -> Value:
    """The first true value of ``condition``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(interval)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


class ClusterRun:
    """One `snakemake --profile slurm` in a checkout."""

    def __init__(self, cluster: Cluster, checkout: Checkout, *arguments: str) -> None:
        self.folder = checkout.folder
        self.log = self.folder / f"run{len(list(self.folder.glob('run*.log')))}.log"
        # Looks at its jobs more often than a real run would.
        command = checkout.command("--profile", "slurm", "--slurm-init-seconds-before-status-checks", "1", *arguments)
        environment = {**checkout.environment(), **cluster.environment, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=file, stderr=subprocess.STDOUT, text=True
            )

    @property
    def text(self) -> str:
        """What Snakemake has printed so far."""
        return self.log.read_text()

    def wait(self, what: str, condition: Callable[[], Value], seconds: float = 900) -> Value:
        """As :func:`wait_for`, but give up when Snakemake ends."""

        def checked() -> Value:
            value = condition()
            assert value or self.process.poll() is None, f"ended before {what}:\n{self.text[-4000:]}"
            return value

        return wait_for(what, checked, seconds, interval=0.02)

    def finish(self, seconds: float = 2400) -> None:
        """Wait for the end, which has to be a good one."""
        assert self.process.wait(seconds) == 0, self.text[-6000:]

    def stop(self) -> int:
        """Ask Snakemake to end in good order; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(600)

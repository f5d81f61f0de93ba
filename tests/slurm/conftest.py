"""A Slurm cluster of two nodes on this machine for all tests that need one, and runs of the workflow on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.slurm.cluster import COMMANDS, DAEMONS, Cluster
from tests.workflow.checkout import Checkout

Value = TypeVar("Value")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster; tests are skipped where Slurm is not installed, but not in continuous integration."""
    missing = [name for name in (*DAEMONS, *COMMANDS) if shutil.which(name) is None]
    if (missing or os.geteuid()) and not os.environ.get("CI"):
        pytest.skip(f"needs root and Slurm (apt-get install slurm-wlm munge); missing: {', '.join(missing) or 'root'}")
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "cluster", nodes=2, processors=2, gpus=2)
    cluster.start()
    yield cluster
    cluster.stop()


def wait_for(what: str, condition: Callable[[], Value], seconds: float = 400, interval: float = 0.1) -> Value:
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

    def wait(self, what: str, condition: Callable[[], Value], seconds: float = 400) -> Value:
        """As :func:`wait_for`, but give up when Snakemake ends."""

        def checked() -> Value:
            value = condition()
            assert value or self.process.poll() is None, f"ended before {what}:\n{self.text[-4000:]}"
            return value

        return wait_for(what, checked, seconds, interval=0.02)

    def finish(self, seconds: float = 900) -> None:
        """Wait for the end, which has to be a good one."""
        assert self.process.wait(seconds) == 0, self.text[-6000:]

    def stop(self) -> int:
        """Ask Snakemake to end in good order; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(600)


@pytest.fixture
def on_cluster(cluster: Cluster) -> Iterator[Callable[..., ClusterRun]]:
    """Starts runs on the cluster; ends what is left of them and of their jobs afterwards."""
    runs: list[ClusterRun] = []

    def start(checkout: Checkout, *arguments: str) -> ClusterRun:
        runs.append(ClusterRun(cluster, checkout, *arguments))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
    cluster.command("scancel", "--user=root", "--full", "--signal=KILL")
    for node in ("fake1", "fake2"):
        cluster.resume(node)

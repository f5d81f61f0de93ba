"""A Slurm cluster of two nodes on this machine for all tests that need one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.slurm.cluster import COMMANDS, DAEMONS, Cluster
from tests.slurm.runs import ClusterRun
from tests.workflow.checkout import Checkout


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

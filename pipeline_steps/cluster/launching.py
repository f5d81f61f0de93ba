"""Command lines that start a step once for each GPU: alone, on one node, or on several nodes of a Slurm job.

One process per GPU, or a single one without GPUs. The processes of a node are started by torch's elastic agent (what
torchrun does); on several nodes srun starts one agent per node, and these meet at the first node of the job.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline_steps.common.errors import UserError

RENDEZVOUS_SECONDS = 600
"""How long the first node waits for the others: they may still be starting up on a busy file system."""


@dataclass(frozen=True)
class Layout:
    """Where the processes of a step run."""

    gpus: int  # GPUs of the job, over all nodes; 0 for a job without GPUs
    nodes: int = 1  # nodes of the job
    threads: int = 1  # CPU threads of the job on each node

    def __post_init__(self) -> None:
        if self.gpus < 0 or self.nodes < 1 or self.threads < 1:
            raise UserError(f"{self.gpus} GPUs, {self.nodes} nodes, {self.threads} threads: not a valid job")
        if self.gpus % self.nodes:
            raise UserError(f"{self.gpus} GPUs cannot be shared equally by {self.nodes} nodes")

    @property
    def processes_per_node(self) -> int:
        """One for each GPU of a node; one for a node without GPUs."""
        return max(1, self.gpus // self.nodes)

    @property
    def threads_per_process(self) -> int:
        """Share of a process in the CPU threads of its node."""
        return max(1, self.threads // self.processes_per_node)


@dataclass(frozen=True)
class Node:
    """This node among those of the job."""

    rank: int  # number of this node, 0-based
    first: str  # address of the first node, where all meet
    port: int  # TCP port on the first node


def step_command(step: str, arguments: Sequence[str]) -> list[str]:
    """Command line of one process of a step."""
    return [sys.executable, "-m", f"pipeline_steps.{step}", *arguments]


def srun_command(layout: Layout, step: str, arguments: Sequence[str]) -> list[str]:
    """Command line that starts this launcher once on every node of the Slurm job around it.

    Everything is said explicitly: Snakemake removes the variables of the job (SLURM_NTASKS and so on) that srun would
    take as defaults.
    """
    if shutil.which("srun") is None:
        raise UserError(
            "a training on several nodes is started by srun, which is not on PATH: run it with --profile slurm, or "
            "set compute.training_nodes to 1"
        )
    gpus_per_node = layout.gpus // layout.nodes
    return [
        "srun",
        f"--nodes={layout.nodes}",
        f"--ntasks={layout.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={layout.threads}",
        *([f"--gpus-per-node={gpus_per_node}"] if gpus_per_node else []),
        "--kill-on-bad-exit=1",
        *step_command("launch", ["--gpus", str(layout.gpus), "--nodes", str(layout.nodes)]),
        *["--threads", str(layout.threads), "--on-each-node", step, *arguments],
    ]


def node_of_task(environment: Mapping[str, str] = os.environ) -> Node:
    """This node, from the variables that srun gives to each of its tasks.

    Raises:
        UserError: the variables are not there.
    """
    try:
        rank, job = int(environment["SLURM_PROCID"]), int(environment["SLURM_JOB_ID"])
        names = environment["SLURM_STEP_NODELIST"]
    except (KeyError, ValueError) as error:
        raise UserError(f"not inside srun ({error}): leave --on-each-node to the launcher") from None
    first = _scontrol("show", "hostnames", names).split()[0]
    # Slurm's name of a node need not be known to the resolver; its address is what Slurm itself uses.
    address = re.search(r"\bNodeAddr=(\S+)", _scontrol("show", "node", first))
    # The same port on all nodes without talking to each other; a job that is submitted again gets another one.
    return Node(rank, address[1] if address else first, 20000 + job % 20000)


def _scontrol(*arguments: str) -> str:
    result = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"scontrol {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def run_on_node(layout: Layout, step: str, arguments: Sequence[str], node: Node | None = None) -> int:
    """Run one process for each GPU of this node and return the exit code of the first that failed, or 0.

    ``node`` is this one among several; None for a job on one node.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException  # torch takes seconds to import
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ["OMP_NUM_THREADS"] = str(layout.threads_per_process)
    common: dict[str, Any] = {
        "min_nodes": layout.nodes,
        "max_nodes": layout.nodes,
        "nproc_per_node": layout.processes_per_node,
        "max_restarts": 0,  # a training that failed is started again by the workflow, as a new job
        "run_id": os.environ.get("SLURM_JOB_ID", "local"),
    }
    if node is None:
        config = LaunchConfig(**common, rdzv_backend="c10d", rdzv_endpoint="localhost:0")
    else:
        meeting = {"rank": node.rank, "timeout": RENDEZVOUS_SECONDS}
        endpoint = f"{node.first}:{node.port}"
        config = LaunchConfig(**common, rdzv_backend="static", rdzv_endpoint=endpoint, rdzv_configs=meeting)
    program, *rest = step_command(step, arguments)
    try:
        elastic_launch(config, program)(*rest)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0

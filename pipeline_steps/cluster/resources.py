"""What jobs ask for, as Snakemake wants it: more with every further attempt, and processes on one node or several."""

from collections.abc import Callable
from typing import Any


def growing(amount: int) -> Callable[[Any, int], int]:
    """Minutes or megabytes of which every further attempt of a job gets more."""
    return lambda wildcards, attempt: amount * attempt  # noqa: ARG005 Snakemake passes arguments by their names


def growing_hours(hours: float, longest: float) -> Callable[[Any, int], int]:
    """Time limit in minutes that grows with the attempt, up to what the cluster allows."""
    return lambda wildcards, attempt: max(1, round(60 * min(hours * attempt, longest)))  # noqa: ARG005


def processes(gpus: int, nodes: int) -> dict[str, Any]:
    """Resources of a job with ``gpus`` processes on each of ``nodes`` nodes.

    On several nodes each starts its own processes: the job then only calls srun (``mpi``). ``gpu`` is the number over
    all nodes, which is what a cluster is asked for.
    """
    asked: dict[str, Any] = {"gpu": nodes * gpus, "nodes": nodes}
    if nodes > 1:
        asked |= {"mpi": "srun", "tasks": nodes, "tasks_per_gpu": 0, "slurm_extra": f"--gpus-per-node={gpus}"}
    return asked

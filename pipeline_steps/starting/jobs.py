"""What Snakemake is about to do, has done, or knows of a run: read from its workflow object."""

from collections import Counter
from pathlib import Path
from typing import Any


def waiting_jobs(workflow: Any) -> list[Any]:
    """The jobs that will run."""
    return [job for job in workflow.dag.needrun_jobs() if not job.is_norun]


def job_counts(workflow: Any) -> Counter[str]:
    """Number of jobs of each rule that will run."""
    return Counter(job.rule.name for job in waiting_jobs(workflow))


def most_gpus(workflow: Any) -> int:
    """The most GPUs that a job that will run asks for, as its rule says."""
    asked = (job.rule.resources for job in waiting_jobs(workflow))
    return max((resources["gpu"].value for resources in asked if "gpu" in resources), default=0)


def rule_graph(workflow: Any) -> dict[str, Any]:
    """All rules of this run with their numbers of jobs and their files of rules, and what uses the outputs of what."""
    rules: dict[str, dict[str, Any]] = {}
    edges = set()
    for job in workflow.dag.jobs:
        if job.output:  # without the targets that only collect files
            stage = Path(str(job.rule.snakefile)).stem
            rules.setdefault(job.rule.name, {"jobs": 0, "stage": stage})["jobs"] += 1
            edges |= {(other.rule.name, job.rule.name) for other in workflow.dag.dependencies[job]}
    return {"rules": dict(sorted(rules.items())), "edges": sorted(edges)}


def cluster(workflow: Any) -> str:
    """Name of Snakemake's executor; empty where jobs run on this machine."""
    return "" if workflow.local_exec else workflow.executor_plugin.name


def cluster_logs(workflow: Any) -> Path | None:
    """Folder of what the cluster writes about jobs; None for a run without a cluster."""
    if cluster(workflow) != "slurm":
        return None
    return Path(workflow.executor_settings.logdir or ".snakemake/slurm_logs")


def was_interrupted(workflow: Any) -> bool:
    """Whether the run was stopped by Ctrl-C or SIGTERM: no job failed, and the executor did not either."""
    return not getattr(workflow.scheduler, "_executor_error", None)

"""Jobs that an earlier Snakemake left in the queue of a Slurm cluster."""

import subprocess
from pathlib import Path

from pipeline_steps.common.errors import UserError, listing


def queued_jobs(folder: Path) -> list[str]:
    """Ids of this user's waiting and running jobs that Snakemake submitted from ``folder``; none if squeue fails."""
    command = ["squeue", "--me", "--noheader", "--format=%i|%k|%Z"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split("|", 2) for line in result.stdout.splitlines() if line.count("|") >= 2)
    return [job for job, comment, where in rows if comment.startswith("rule_") and Path(where) == folder]


def refuse_queued_jobs(folder: Path) -> None:
    """Stop if jobs of an earlier run are still there: they and the new ones would write the same files.

    Raises:
        UserError: names the jobs and what to do.
    """
    if jobs := queued_jobs(folder):
        ids = " ".join(sorted({job.partition("_")[0] for job in jobs}))
        raise UserError(
            f"jobs of an earlier run in this folder are still in the queue ({listing(jobs)}): wait until they have "
            f"ended, or cancel them with `scancel {ids}`, then start again"
        )

"""Times of jobs, from the benchmark files that Snakemake leaves."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd


def job_seconds(files: Iterable[Path], column: str) -> tuple[float, int]:
    """Seconds of all jobs together, and the number of files that tell them; damaged files and values are left out.

    Args:
        column: ``s`` (time that passed) or ``cpu_time``.
    """
    total, jobs = 0.0, 0
    for path in files:
        try:
            told = pd.read_csv(path, sep="\t")[column]
        except (KeyError, ValueError):
            continue
        total += float(pd.to_numeric(told, errors="coerce").sum())
        jobs += 1
    return total, jobs

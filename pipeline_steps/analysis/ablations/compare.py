"""The whole comparison in one file: tables of runs, settings and differences, and what the loss does to gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_steps.analysis.ablations.mechanism import OF_RUNS, measure
from pipeline_steps.analysis.ablations.runs import Runs
from pipeline_steps.analysis.ablations.tables import (
    differences_frame,
    means_frame,
    quotients_frame,
    runs_frame,
    settings_frame,
)


def compare(runs: Runs, benchmarks: Path | None = None) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Compute everything that is shown of the compared settings.

    Args:
        runs: the compared models' files.
        benchmarks: folder of the workflow's benchmark files, for the CPU time.

    Returns:
        Tables ``runs``, ``settings``, ``differences``, ``mechanism``, ``mechanism_means`` over seeds, ``quotients``,
        ``gradients`` and ``categories``; and the facts of :class:`Mechanism`, ``missing`` models, CPU ``seconds`` and
        ``jobs``.
    """
    mechanism, frame = measure(runs), runs_frame(runs)
    tables = {
        "runs": frame,
        "settings": settings_frame(frame),
        "differences": differences_frame(runs, frame),
        "mechanism": mechanism.runs,
        "mechanism_means": means_frame(mechanism.runs, OF_RUNS),
        "quotients": quotients_frame(runs, mechanism.runs),
        "gradients": mechanism.groups,
        "categories": mechanism.categories,
    }
    seconds, jobs = cpu_seconds(benchmarks)
    return tables, {**mechanism.facts, "missing": runs.missing(), "seconds": seconds, "jobs": jobs}


def cpu_seconds(folder: Path | None) -> tuple[float, int]:
    """CPU seconds of all jobs that left a benchmark file, and their number."""
    total, jobs = 0.0, 0
    for path in sorted(folder.rglob("*.tsv")) if folder is not None else []:
        table = pd.read_csv(path, sep="\t")
        if "cpu_time" in table:
            total += float(pd.to_numeric(table["cpu_time"], errors="coerce").fillna(0).sum())
            jobs += 1
    return total, jobs

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
from pipeline_steps.analysis.benchmarks import job_seconds


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
    seconds, jobs = job_seconds(sorted(benchmarks.rglob("*.tsv")) if benchmarks else [], "cpu_time")
    return tables, {**mechanism.facts, "missing": runs.missing(), "seconds": seconds, "jobs": jobs}

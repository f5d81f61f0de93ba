"""What the workflow prints before a run, when it starts, ends well, or fails."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_steps.estimates.estimates import recipe_estimate
from pipeline_steps.estimates.text import one_line, table_lines
from pipeline_steps.recipe.testing import Member
from pipeline_steps.recipe.training import Model
from pipeline_steps.run.result_files import SPLITS, ResultFiles

FAILURES_SHOWN = 3


def _names(items: Sequence[Model | Member]) -> str:
    """Names of models or members; replicates together, with their number."""
    names = Counter(getattr(item, "replicate_of", "") or item.name for item in items)
    return ", ".join(name if count == 1 else f"{name} ({count} seeds)" for name, count in names.items()) or "none"


def _on_disk(files: ResultFiles) -> str:
    """Which of the recipe's trainings and other results are there already."""
    models = [files.model(model.name) for model in files.recipe.trained]
    ensemble = [files.ensemble(split) for split in SPLITS]
    others = {"ensemble": ensemble, "submission": [files.submission], "summary": [files.summary]}
    parts = [f"{sum(path.exists() for path in models)} of {len(models)} models"]
    parts += [name for name, paths in others.items() if all(path.exists() for path in paths)]
    return ", ".join(parts)


def plan_banner(files: ResultFiles) -> str:
    """Recipe, models and members, what is there, and what the run takes."""
    recipe = files.recipe
    scales = ", ".join(map(str, recipe.testing.box_scales))
    return "\n".join(
        [
            f"recipe {recipe.name}: LVIS {recipe.lvis_version}, data: {recipe.datasets_root} ({recipe.data.source})",
            f"  COCO pre-training: {_names(recipe.pretraining)}",
            f"  LVIS models:       {_names(recipe.models)}",
            f"  experts:           {_names(recipe.experts)}",
            f"  ensemble:          {_names(recipe.ensemble.members)}; boxes and masks tested at {scales} px",
            f"  on the disk:       {_on_disk(files)}",
            f"  outputs:           {files.root}/",
            *(f"  {line}" for line in table_lines(recipe_estimate(recipe, files.root))),
        ]
    )


def plan_line(files: ResultFiles, gpus: str) -> str:
    """What the recipe takes, in one line; ``gpus`` says where its GPUs come from."""
    estimate = recipe_estimate(files.recipe, files.root)
    return f"recipe {files.recipe.name}: {one_line(estimate)}" + (f"; {gpus}" if estimate.on_gpus else "")


def start_banner(files: ResultFiles, jobs: Mapping[str, int]) -> str:
    """:func:`plan_banner` and the number of jobs of each rule that will run."""
    running = ", ".join(f"{count} {rule}" for rule, count in sorted(jobs.items())) or "nothing"
    return f"{plan_banner(files)}\n  will run:          {running}"


def end_banner(files: ResultFiles) -> str:
    """Where the results are, and the summary table if there is one."""
    lines = [f"recipe {files.recipe.name}: finished"]
    if files.summary.is_file():
        lines += ["", files.summary.read_text(encoding="utf-8").rstrip(), ""]
    for what, path in (
        ("submission", files.submission),
        ("report", files.page),
        ("comparison", files.ablations_page),
        ("metrics", files.evaluation),
    ):
        if path.exists():
            lines.append(f"  {what + ':':12} {path}")
    return "\n".join(lines)


def _log(job: Any) -> Path:
    return Path(job.log[0])


def _tail(path: Path, count: int) -> list[str]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()][-count:]


def _cluster_log(job: Any, folder: Path | None) -> Path | None:
    """Newest log of the cluster about a job; tasks of an array have theirs directly in the folder of the rule."""
    if folder is None:
        return None
    of_rule = folder / f"rule_{job.rule.name}"
    of_job = of_rule / "_".join(job.wildcards).replace("/", "_")
    logs = (of_job if of_job.is_dir() else of_rule).rglob("*.log")
    return max(logs, key=lambda path: path.stat().st_mtime, default=None)


def _describe(job: Any, cluster_logs: Path | None, tail: int) -> list[str]:
    wildcards = ", ".join(f"{name}={value}" for name, value in job.wildcards_dict.items())
    name = f"{job.rule.name} ({wildcards})" if wildcards else job.rule.name
    lines = _tail(_log(job), tail)
    told = any("error:" in line or "Error" in line for line in lines)
    described = [f"{name} failed; its log is {_log(job)}:"]
    described += [f"  | {line}" for line in lines] or ["  | (empty: the job ended before the step wrote anything)"]
    cluster = _cluster_log(job, cluster_logs)
    if not told:
        described.append(
            "  the step itself reports no error: it was probably killed from outside (memory, time limit, scancel, "
            "a lost node, a full disk)"
        )
        if cluster is not None:
            described += [f"  message of the cluster, {cluster}:", *(f"  | {line}" for line in _tail(cluster, 5))]
    elif cluster is not None:
        described.append(f"  the cluster's log of the job: {cluster}")
    return described


def failure_message(
    jobs: Iterable[Any], cluster_logs: Path | None = None, tail: int = 15, interrupted: bool = False
) -> str:
    """Which jobs failed in all their attempts, the last ``tail`` lines of their logs, and what to do.

    Args:
        cluster_logs: folder of what the cluster writes about jobs; None for a run without a cluster.
        interrupted: whether the run was ended from outside (Ctrl-C, SIGTERM).
    """
    failed = sorted(jobs, key=lambda job: job.jobid)
    lines: list[str] = []
    for job in failed[:FAILURES_SHOWN]:
        lines += ["", *_describe(job, cluster_logs, tail)]
    if len(failed) > FAILURES_SHOWN:
        logs = [f"  {_log(job)}" for job in failed[FAILURES_SHOWN:]]
        lines += ["", f"and {len(logs)} more:", *logs]
    kept = "finished stages are kept, trainings resume from their last checkpoint."
    if not failed and interrupted:
        return f"Stopped. To continue, run the same command again: {kept}"
    if not failed:
        lines = ["", "the run stopped before a job failed: the message is above"]
    return "\n".join([*lines, "", f"Fix the cause and run the same command again: {kept}"]).lstrip("\n")

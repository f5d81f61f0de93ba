"""What the workflow prints when a run starts, ends well, or fails."""

from __future__ import annotations

from pathlib import Path

from pipeline_steps.recipe.schema import Recipe


def _names(items: list) -> str:
    return ", ".join(item.name for item in items) or "none"


def start_banner(recipe: Recipe) -> str:
    """Recipe, models and members of the run that starts."""
    scales = ", ".join(map(str, recipe.testing.box_scales))
    return "\n".join(
        [
            f"recipe {recipe.name}: LVIS {recipe.lvis_version}, data: {recipe.datasets_root} ({recipe.data.source})",
            f"  COCO pre-training: {_names(recipe.pretraining)}",
            f"  LVIS models:       {_names(recipe.models)}",
            f"  experts:           {_names(recipe.experts)}",
            f"  ensemble:          {_names(recipe.ensemble.members)}; boxes and masks tested at {scales} px",
            f"  outputs:           results/{recipe.name}/",
        ]
    )


def end_banner(recipe: Recipe, results: str) -> str:
    """Where the results are, and the summary table if there is one."""
    lines = [f"recipe {recipe.name}: finished"]
    summary = Path(results) / "report/summary.md"
    if summary.is_file():
        lines += ["", summary.read_text(encoding="utf-8").rstrip(), ""]
    for what, name in (
        ("submission", "submission/submission.json"),
        ("pictures", "report/gallery.html"),
        ("metrics", "evaluation"),
    ):
        path = Path(results) / name
        if path.exists():
            lines.append(f"  {what + ':':12} {path}")
    return "\n".join(lines)


def failure_hint(results: str, tail: int = 15) -> str:
    """The newest log of the run with its last lines, and what to do."""
    logs = sorted(Path(results, "logs").rglob("*.log"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return "the run failed before any step wrote a log; the message is above"
    lines = logs[-1].read_text(encoding="utf-8", errors="replace").splitlines()[-tail:]
    return "\n".join(
        [
            f"the run failed; last lines of the newest log, {logs[-1]}:",
            *(f"  | {line}" for line in lines),
            "mend the cause and start the same command again: finished stages are kept, trainings go on from their"
            " last checkpoint.",
        ]
    )

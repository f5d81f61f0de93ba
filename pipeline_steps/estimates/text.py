"""The estimate of a recipe in words: one line, and the table of the plan and of the step ``estimate``."""

from collections.abc import Iterable, Iterator

from pipeline_steps.common.errors import listing
from pipeline_steps.estimates.cards import CARDS, assumption
from pipeline_steps.estimates.estimates import GIB, MEMORY_FACTOR, MEMORY_RESERVE, Job, RecipeEstimate


def _gb(value: float | None) -> str:
    return "?" if value is None else f"{value / 1e9:,.1f}"


def one_line(estimate: RecipeEstimate) -> str:
    """GPU hours that are still to do, memory and disk in one line of text."""
    disk = f"{estimate.disk.total / 1e9:,.0f} GB of disk"
    if not estimate.on_gpus:
        return f"runs on CPUs; {disk}"
    hours = ", ".join(f"{card} {estimate.hours(card, missing_only=True):,.0f}" for card in CARDS)
    unknown = f"; without {listing(dict.fromkeys(estimate.unknown.values()), 4)}, not traced yet" * bool(
        estimate.unknown
    )
    return f"GPU hours to do: {hours}; GPU memory {estimate.memory_gb:.0f} GiB; {disk}{unknown}"


def _groups(jobs: Iterable[Job]) -> Iterator[tuple[str, list[Job]]]:
    """Jobs of a stage with equal numbers together, both splits of a model too; and what they are called."""
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        numbers = (job.total_flops / job.images, job.memory, job.precision, job.checkpoint_bytes)
        groups.setdefault((job.stage, *(numbers if job.known else (job.name,))), []).append(job)
    for (stage, *_), found in groups.items():
        yield f"{stage}: {listing(dict.fromkeys(job.name for job in found), 3)}", found


def table_lines(estimate: RecipeEstimate, recipe_name: str = "R") -> list[str]:
    """The estimate as a table, with its assumptions below."""
    cards = list(CARDS)
    head = f"{'stage':48}{'images':>11}{'PFLOP':>10}{'GiB':>7}{'at most':>9}{'model':>8}{'checkpoint':>12}"
    lines = [head + "".join(f"{card + ' h':>9}" for card in cards)]
    for name, jobs in _groups(estimate.jobs):
        images = f"{sum(job.images for job in jobs):,}"
        if not jobs[0].known:
            lines.append(f"{name[:47]:48}{images:>11}{'not traced yet':>17}")
            continue
        memory, most = ((value or 0) / GIB for value in (jobs[0].memory, jobs[0].largest_memory))
        files = "".join(
            f"{_gb(value) + ' GB' if value else '':>{width}}"
            for value, width in ((jobs[0].model_bytes, 8), (jobs[0].checkpoint_bytes, 12))
        )
        hours = "".join(f"{sum(job.hours(card) for job in jobs):9,.1f}" for card in cards)
        flops = sum(job.total_flops for job in jobs) / 1e15
        lines.append(f"{name[:47]:48}{images:>11}{flops:10,.1f}{memory:7.1f}{most:9.1f}{files}{hours}")
    for name, missing in (("all", False), ("not done yet", True)):
        hours = "".join(f"{estimate.hours(card, missing):9,.0f}" for card in cards)
        total = sum(job.total_flops for job in estimate.jobs if not (missing and job.output in estimate.done)) / 1e15
        lines.append(f"{name:48}{'':11}{total:10,.0f}{'':36}{hours}")
    disk = estimate.disk
    lines += [
        f"disk: data {_gb(disk.data)} GB, archives while unpacking {_gb(disk.unpacking)} GB, checkpoints in training "
        f"{_gb(disk.checkpoints)} GB, models, tables, submission {_gb(disk.results)} GB; together {_gb(disk.total)} GB",
        "GiB: tensors of one GPU at its peak, at the largest 4:3 image and at the largest of any aspect; the card "
        f"needs {100 * (MEMORY_FACTOR - 1):.0f} % and {MEMORY_RESERVE / GIB:.0f} GiB more",
        *(f"GPU hours: {assumption(precision)}" for precision in sorted({job.precision for job in estimate.jobs})),
        "(origin of the constants: pipeline_steps/estimates/cards.py)",
    ]
    if not estimate.on_gpus:
        lines.append("this recipe runs on CPUs: the hours are what GPUs would take")
    if estimate.unknown:
        lines.append(f"not traced yet: python -m pipeline_steps.estimate --recipe {recipe_name}")
    return lines

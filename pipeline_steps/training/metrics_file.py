"""What a training reports: progress lines, ``metrics.jsonl`` and TensorBoard events; at its end the gradient record."""

from __future__ import annotations

import csv
import json
import logging
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.progress import format_duration
from pipeline_steps.modeling.gradient_record import QUANTITIES
from pipeline_steps.run.result_files import GRADIENTS_FILE, METRICS_FILE
from pipeline_steps.training.tracker import Tracker

log = logging.getLogger(__name__)


class Averages:
    """Means of named numbers since the last report. ``state`` goes into checkpoints, so that a report after a restart
    covers the same iterations as without one."""

    def __init__(self, state: Mapping[str, tuple[float, int]] | None = None) -> None:
        self.state = {name: (total, count) for name, (total, count) in (state or {}).items()}

    def add(self, values: Mapping[str, float]) -> None:
        """Count one more value for each name."""
        for name, value in values.items():
            total, count = self.state.get(name, (0.0, 0))
            self.state[name] = (total + value, count + 1)

    def take(self) -> dict[str, float]:
        """The means, which are then forgotten."""
        means = {name: total / count for name, (total, count) in self.state.items()}
        self.state = {}
        return means


def peak_memory_mb(device: torch.device) -> int:
    """Highest memory so far: of tensors on a GPU, of the process otherwise, in MB (10^6 bytes)."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


class MetricsWriter:
    """Writes metrics every ``log_images`` images: one JSON object per line; ``iteration`` counts iterations done."""

    def __init__(self, folder: Path, title: str, iterations: int, start: int, tracker: Tracker | None = None) -> None:
        """
        Args:
            title: name in the progress line.
            start: iterations done so far; later entries of an interrupted run are removed.
            tracker: gets the same numbers.
        """
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS_FILE
        self.title, self.iterations, self._tracker = title, iterations, tracker
        _cut_off(self.path, start)
        self._events = SummaryWriter(str(folder), purge_step=start + 1, flush_secs=30)
        self._last = (time.monotonic(), start)

    def write(self, iteration: int, images: int, values: Mapping[str, float], memory_mb: int) -> None:
        """Write the mean ``values`` of the iterations since the last report."""
        now, (then, before) = time.monotonic(), self._last
        rate = (iteration - before) / max(now - then, 1e-9)
        self._last = (now, iteration)
        line: dict[str, Any] = {"iteration": iteration, "images": images}
        line |= {name: round(value, 6) for name, value in values.items()}
        line |= {"iterations_per_second": round(rate, 3), "peak_memory_mb": memory_mb}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in line.items():
            if name not in ("iteration", "images"):
                self._events.add_scalar(f"training/{name}", value, iteration)
        if self._tracker is not None:
            self._tracker.write(iteration, {name: value for name, value in line.items() if name != "iteration"})
        losses = {name: value for name, value in values.items() if name.startswith("loss_")}
        parts = ", ".join(f"{name.removeprefix('loss_')} {value:.3f}" for name, value in losses.items())
        left = format_duration((self.iterations - iteration) / rate) if rate else "?"
        log.info(
            "%s: iteration %d/%d, %d images, loss %.3f (%s), learning rate %.3g, %.2f iterations/s, %s left, %d MB",
            *(self.title, iteration, self.iterations, images, sum(losses.values()), parts),
            *(values.get("learning_rate", 0.0), rate, left, memory_mb),
        )

    def close(self) -> None:
        """Flush the events."""
        self._events.close()
        if self._tracker is not None:
            self._tracker.close()


def _cut_off(path: Path, iteration: int) -> None:
    """Remove the lines after ``iteration``, and a line that a killed run has written in part."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(text)["iteration"] > iteration:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(text + "\n")
    with atomic_output(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def write_gradients(folder: Path, sums: torch.Tensor | None, category_ids: list[int], images: int) -> None:
    """Write ``gradients.csv`` beside the model, or remove that of an earlier training if nothing was recorded.

    One row per window and category: ``window`` from 0; ``images``, at which it ends; ``category_id``; and the sums of
    :mod:`pipeline_steps.modeling.gradient_record`.

    Args:
        sums: Tensor[W, 4, C], or None.
        category_ids: the data set's own id of each of the C positions.
        images: images of the whole training.
    """
    path = folder / GRADIENTS_FILE
    if sums is None:
        path.unlink(missing_ok=True)
        return
    with atomic_output(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["window", "images", "category_id", *QUANTITIES])
        for window, table in enumerate(sums.permute(0, 2, 1).tolist()):
            end = images * (window + 1) // len(sums)
            rows.writerows(
                [window, end, category, *(f"{v:.8g}" for v in values)]
                for category, values in zip(category_ids, table, strict=True)
            )

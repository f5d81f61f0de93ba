"""Optional experiment tracking beside TensorBoard: Weights & Biases or MLflow, if the package is installed.

What is sent is what ``metrics.jsonl`` holds. A continued training goes on in the tracker's same run. A tracker that
fails while the training runs is left out from then on, with a warning: it must not end a training.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_steps.common.errors import UserError

log = logging.getLogger(__name__)

RUN_FILE = "tracker_run.txt"
"""File in the folder of a training that holds the tracker's id of the run."""


def require_tracker(kind: str) -> None:
    """Check before any work that a tracker (``none``, or the package ``wandb`` or ``mlflow``) can be used.

    Raises:
        UserError: the package is not installed.
    """
    if kind != "none" and importlib.util.find_spec(kind) is None:
        raise UserError(
            f"training.tracker is {kind!r}, but the package {kind} is not installed here: pip install {kind}, or "
            "set training.tracker to none (TensorBoard events are always written)"
        )


class Tracker:
    """One run of a tracker."""

    def __init__(self, kind: str, folder: Path, project: str, title: str, start: int) -> None:
        """
        Args:
            project: the recipe's name: project or experiment of the tracker.
            start: iterations done so far; above 0 the run of this training is continued.

        Raises:
            UserError: the tracker does not start; the message is its own.
        """
        self.kind = kind
        self._package: Any = importlib.import_module(kind)
        file = folder / RUN_FILE
        earlier = file.read_text(encoding="utf-8").strip() if start and file.is_file() else None
        try:
            run_id = self._start(folder, project, title, earlier)
        except Exception as error:  # of any kind: network, account, settings
            raise UserError(f"training.tracker: {kind} does not start ({error}); fix it, or set it to none") from error
        file.write_text(f"{run_id}\n", encoding="utf-8")

    def _start(self, folder: Path, project: str, title: str, earlier: str | None) -> str:
        if self.kind == "wandb":
            run = self._package.init(project=project, name=title, dir=str(folder), id=earlier, resume="allow")
            return run.id
        self._package.set_experiment(project)
        run = self._package.start_run(run_id=earlier, run_name=None if earlier else title)
        return run.info.run_id

    def _guarded(self, what: str, *arguments: Any, **options: Any) -> None:
        if self._package is None:
            return
        try:
            getattr(self._package, what)(*arguments, **options)
        except Exception as error:
            log.warning("%s failed (%s): it gets no more data; metrics.jsonl is still written", self.kind, error)
            self._package = None

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        """Send numbers of one report."""
        self._guarded("log" if self.kind == "wandb" else "log_metrics", dict(values), step=iteration)

    def close(self) -> None:
        """End the run."""
        self._guarded("finish" if self.kind == "wandb" else "end_run")

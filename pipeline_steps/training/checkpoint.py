"""Checkpoints beside the final model: written atomically, the last two kept, damaged ones passed over.

``checkpoint_<iterations done>.pth`` holds everything that a training needs to go on exactly where it was; see
:meth:`pipeline_steps.training.loop.Trainer.state`. It also holds the training settings, so that a changed recipe is
noticed (:func:`find_resumable`).

The training itself draws from no global random generator (data order, augmentation and sampling have generators of
their own); their states are kept so that parts which do, such as dropout, would resume exactly too.
"""

from __future__ import annotations

import logging
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.run.result_files import GRADIENTS_FILE, METRICS_FILE
from pipeline_steps.training.settings import Settings, differences

log = logging.getLogger(__name__)

FORMAT = 1
KEPT = 2
"""Two, so that a file that a failing disk has damaged does not cost the whole training."""

OnMismatch = Literal["refuse", "discard"]


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in ``folder``, newest first."""
    found = [path for path in folder.glob("checkpoint_*.pth") if path.stem.removeprefix("checkpoint_").isdigit()]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("checkpoint_")), reverse=True)


def save_tensors(content: dict[str, Any], path: Path) -> None:
    """``torch.save`` atomically. Through a Python file: a full disk then is an OSError and not an internal one."""
    with atomic_output(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def save_checkpoint(folder: Path, iteration: int, state: dict[str, Any], settings: Settings) -> Path:
    """Write the checkpoint of ``iteration`` iterations done, then remove all but the last two."""
    path = folder / f"checkpoint_{iteration:08d}.pth"
    save_tensors({"format": FORMAT, "settings": settings, "state": state}, path)
    for old in checkpoints(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Content of a checkpoint, on the CPU; None if it is truncated, damaged or of another format."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        log.warning("%s cannot be read (%s)", path, str(error).splitlines()[0] if str(error) else type(error).__name__)
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT or "settings" not in content:
        log.warning("%s has another format", path)
        return None
    return content


def remove_unfinished(folder: Path) -> None:
    """Remove checkpoints that a killed run was writing, on whatever host: only one training writes to a folder."""
    for path in folder.glob(".checkpoint_*.unfinished-*"):
        path.unlink(missing_ok=True)


def remove_training_files(folder: Path, keep_metrics: bool) -> None:
    """Remove checkpoints, and unless ``keep_metrics`` also metrics and TensorBoard events, of a training."""
    remove_unfinished(folder)
    patterns = ["checkpoint_*.pth"]
    if not keep_metrics:
        patterns += [GRADIENTS_FILE, METRICS_FILE, "events.out.tfevents.*"]
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def mismatch_message(path: Path, differing: list[str]) -> str:
    """Message that names what differs and the ways out."""
    return (
        f"{path} belongs to a training with other settings: {listing(differing, 8)}. Restore the settings to continue "
        "it, give another --output, or discard it with --on-mismatch discard"
    )


def find_resumable(folder: Path, settings: Settings, on_mismatch: OnMismatch) -> Path | None:
    """The newest readable checkpoint of the same training; None to start from the beginning.

    Args:
        on_mismatch: ``refuse`` stops if the checkpoints belong to other settings or none can be read; ``discard``
            removes all files of the old training.

    Raises:
        UserError: see ``on_mismatch``.
    """
    found = checkpoints(folder)
    problem = ""
    for path in found:
        content = read_checkpoint(path)
        if content is None:
            continue
        differing = differences(content["settings"], settings)
        if not differing:
            return path
        problem = mismatch_message(path, differing)
        break
    else:
        if found:
            problem = (
                f"no checkpoint in {folder} can be read ({listing(path.name for path in found)}): remove them, or "
                "start from the beginning with --on-mismatch discard"
            )
    if not problem:
        return None
    if on_mismatch == "refuse":
        raise UserError(problem)
    log.warning("%s", problem.split(". Restore")[0].split(": remove them")[0])
    log.warning("discarded; starting from the beginning")
    remove_training_files(folder, keep_metrics=False)
    return None


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators (torch's on all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """States of all global random generators, as plain values and tensors."""
    numpy_state = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {k: np.asarray(v).tolist() for k, v in numpy_state["state"].items()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    inner = state["numpy"]["state"]
    np.random.set_state({**state["numpy"], "state": {**inner, "key": np.asarray(inner["key"], dtype=np.uint32)}})
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)

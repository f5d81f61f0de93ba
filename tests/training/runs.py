"""Running the training step in tests: in this process, and as a user does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from pipeline_steps.modeling.weights import read_model_file
from pipeline_steps.training.run import Job
from tests.training.world import make_recipe

ROOT = Path(__file__).parents[2]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
"""Of the commands of :func:`command`."""


def job(root: Path, output: Path, model: str = "basic_coco", **values: Any) -> Job:
    """A training in the world below ``root`` with these fields of a job and, for the rest, training settings."""
    keys = {"init", "stop_before_minutes", "on_mismatch"}
    options = {key: values.pop(key) for key in list(values) if key in keys}
    return Job(make_recipe(root, **values), model, output / "model.pth", **options)


def state(folder: Path) -> dict[str, torch.Tensor]:
    """Parameters and buffers of the final model."""
    return read_model_file(folder / "model.pth")["model"]


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Two models are equal in every bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def command(recipe: Path, model: str, output: Path, *more: str) -> list[str]:
    """Command line of a training; the arguments of the step itself begin at index 3."""
    files = ["--recipe", str(recipe), "--model", model, "--output", str(output / "model.pth")]
    return [sys.executable, "-m", "pipeline_steps.train", *files, *more]

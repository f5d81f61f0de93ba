"""Shared fixtures: one thread, and a tiny training world that tests must not change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.one_thread import one_thread  # noqa: F401
from tests.training.world import write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def pretrained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of ``basic_coco``."""
    from pipeline_steps.training.run import train  # imports detectron2: seconds
    from tests.training.runs import job

    folder = tmp_path_factory.mktemp("pretrained")
    train(job(world, folder))
    return folder

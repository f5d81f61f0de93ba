"""A finished run that the tests of the page share."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_steps.common.cli import call_step
from pipeline_steps.draw_predictions import build_parser, main
from pipeline_steps.report.figures.captions import CAPTIONS
from pipeline_steps.report.figures.index import draw_figures
from tests.report.finished_run import write_finished_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its figures and pictures."""
    folder = tmp_path_factory.mktemp("finished")
    files = write_finished_run(folder)
    options = ["--recipe", str(folder / "recipe.yaml"), "--detections", str(files.detections)]
    assert call_step(build_parser(), main, [*options, "--output", str(files.gallery)]) == 0
    files.figures.mkdir()
    assert draw_figures(files.inputs(), files.figures).drawn == list(CAPTIONS)
    return folder

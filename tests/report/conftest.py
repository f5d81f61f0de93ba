"""A finished run, its page and a browser that the tests of pages share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_steps import write_report
from pipeline_steps.common.cli import call_step
from pipeline_steps.draw_predictions import main, parser
from pipeline_steps.report.figures.captions import CAPTIONS
from pipeline_steps.report.figures.index import draw_figures
from pipeline_steps.report.figures.inputs import Inputs
from tests.report.browser import NAMES, Browser, find_browser
from tests.report.finished_run import write_finished_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its figures and pictures."""
    folder = tmp_path_factory.mktemp("finished")
    files = write_finished_run(folder)
    options = ["--recipe", str(folder / "recipe.yaml"), "--detections", str(files.ensemble("val"))]
    assert call_step(parser, main, [*options, "--output", str(files.gallery)]) == 0
    files.figures.mkdir()
    assert draw_figures(Inputs.of(files), files.figures).drawn == list(CAPTIONS)
    return folder


@pytest.fixture(scope="session")
def page(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the finished run."""
    path = tmp_path_factory.mktemp("page") / "index.html"
    options = ["--recipe", str(finished / "recipe.yaml"), "--results", str(finished / "results")]
    options += ["--figures", str(finished / "results/report/figures"), "--output", str(path)]
    assert call_step(write_report.parser, write_report.main, options) == 0
    return path


@pytest.fixture(scope="session")
def started_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip(f"no browser to check pages with (looked for {', '.join(NAMES)} on the PATH)")
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(started_browser: Browser) -> Browser:
    """A browser, in the light scheme and on a screen until a test says otherwise."""
    started_browser.problems.clear()
    started_browser.media()
    return started_browser

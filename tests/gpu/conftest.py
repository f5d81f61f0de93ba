"""Every test here runs on a CPU at a tiny size, and marked ``gpu`` on a GPU at the real one."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.models import MEASURED, Size, size_on
from tests.one_thread import one_thread  # noqa: F401

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
def size(request: pytest.FixtureRequest) -> Size:
    """Device and size of the test."""
    return size_on(request.param)


@pytest.fixture(autouse=True)
def exact_float32() -> None:
    """No TF32: results are compared with a CPU's."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell what was found out, when these tests are what was asked for."""
    if MEASURED and "gpu" in config.getoption("markexpr"):
        terminalreporter.section("measured")
        for line in MEASURED:
            terminalreporter.write_line(line)

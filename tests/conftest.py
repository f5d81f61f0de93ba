"""Fixtures that tests of several folders share: the smallest recipe runs only once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.checkout import Checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The smallest recipe, run from beginning to end once for all tests that look at its outcome."""
    checkout = Checkout(tmp_path_factory.mktemp("smoke"))
    checkout.first_run = checkout.run("--configfile", "config/smoke.yaml", "--cores", "2", "all")
    assert checkout.first_run.returncode == 0, checkout.first_run.stdout[-6000:]
    return checkout

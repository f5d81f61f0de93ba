"""What tests of several folders share: the smallest recipe runs only once; property tests try the same examples.

``HYPOTHESIS_PROFILE=long`` makes them try thousands of random ones instead.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.workflow.checkout import Checkout

# What a shell starts in its background ignores Ctrl-C, and hands that on to the steps that are interrupted here.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", derandomize=False, deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


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

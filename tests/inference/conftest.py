"""Settings of the property tests: fixed examples in CI, many random ones with ``HYPOTHESIS_PROFILE=long``."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", derandomize=False, deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def stable_sort():
    """Makes torch's sort stable, for reference code that leaves the order of equal values to chance."""
    original = torch.Tensor.sort

    def sort(self, dim=-1, descending=False, stable=True):
        return original(self, dim=dim, descending=descending, stable=True)

    torch.Tensor.sort = sort
    yield
    torch.Tensor.sort = original

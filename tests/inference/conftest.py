"""What the tests of inference share."""

from __future__ import annotations

import pytest
import torch

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

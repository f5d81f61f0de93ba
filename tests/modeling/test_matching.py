"""The matcher that does not wait against detectron2's."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.matcher import Matcher

from pipeline_steps.modeling.matcher import WaitlessMatcher


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize(("thresholds", "labels"), [([0.3, 0.7], [0, -1, 1]), ([0.5], [0, 1])])
def test_matches_and_labels_are_those_of_detectron2(thresholds, labels, low_quality):
    theirs = Matcher(thresholds, labels, allow_low_quality_matches=low_quality)
    ours = WaitlessMatcher(thresholds, labels, allow_low_quality_matches=low_quality)
    generator = torch.Generator().manual_seed(0)
    # Coarse values, so that many are ties or thresholds; among them objects that meet no anchor.
    matrices = [torch.randint(0, 11, (objects, 40), generator=generator) / 10 for objects in (1, 3, 9)]
    matrices += [
        matrices[-1] * (torch.arange(9) % 2)[:, None],
        torch.zeros(2, 40),
        torch.zeros(0, 40),
        torch.zeros(3, 0),
    ]
    for matrix in matrices:
        for result, expected in zip(ours(matrix), theirs(matrix), strict=True):
            assert torch.equal(result, expected)
            assert result.dtype == expected.dtype

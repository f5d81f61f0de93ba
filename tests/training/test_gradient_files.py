"""The gradient record that a training leaves beside its model."""

from __future__ import annotations

import pytest

from pipeline_steps.common.errors import StoppedEarly
from pipeline_steps.modeling.gradient_record import QUANTITIES
from pipeline_steps.training.run import train
from pipeline_steps.training.stopping import StopRequest
from tests.training.runs import assert_same_bits, job, state
from tests.training.world import COCO_IDS


def test_record_of_an_interrupted_training_is_that_of_a_whole_one_and_changes_no_weight(world, pretrained, tmp_path):
    train(job(world, tmp_path / "whole", record_gradients=3))
    assert_same_bits(state(tmp_path / "whole"), state(pretrained))
    stops = iter([False] * 4 + [True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequest, "wanted", lambda self: next(stops))
        with pytest.raises(StoppedEarly):
            train(job(world, tmp_path / "parts", record_gradients=3))
    assert not (tmp_path / "parts/gradients.csv").exists()
    train(job(world, tmp_path / "parts", record_gradients=3))
    text = (tmp_path / "whole/gradients.csv").read_text()
    assert (tmp_path / "parts/gradients.csv").read_text() == text
    rows = [line.split(",") for line in text.splitlines()]
    assert rows[0] == ["window", "images", "category_id", *QUANTITIES]
    assert [(row[0], int(row[2])) for row in rows[1:]] == [(str(w), c) for w in range(3) for c in COCO_IDS]
    assert all(float(row[4]) > 0 for row in rows[1:])


def test_training_anew_without_a_record_takes_the_old_one_away(world, tmp_path):
    train(job(world, tmp_path, record_gradients=2, schedule={"images": 4}))
    assert (tmp_path / "gradients.csv").exists()
    train(job(world, tmp_path, schedule={"images": 4}, on_mismatch="discard"))
    assert (tmp_path / "model.pth").exists()
    assert not (tmp_path / "gradients.csv").exists()

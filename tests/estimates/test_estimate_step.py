"""The step ``estimate`` traces what is not known, keeps it, and refuses what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline_steps.common.errors import UserError
from pipeline_steps.estimate import main, parser
from pipeline_steps.estimates.estimates import recipe_estimate
from pipeline_steps.estimates.text import one_line
from pipeline_steps.recipe import load_recipe

DETECTOR = Path(__file__).parents[2] / "config/detectors/mini_basic_fpn.yaml"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {
        "extends": "mini.yaml",
        "name": "own",
        "pretraining": [],
        "experts": [],
        "models": [{"name": "own_detector", "detector": str(DETECTOR)}],
        "training": {"detector_options": ["LVIS.MINI.BLOCKS_PER_STAGE [1,1,1,1]"], "images_per_batch": 2},
        "testing": {"box_scales": [64], "mask_scales": [64], "longer_edge": 96, "batch_images": 1},
        "ensemble": {"members": [{"name": "own_detector"}]},
        "compute": {"device": "auto", "training_gpus": 1, "inference_gpus": 1},
    }

    def write(**compute):
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({**values, "compute": {**values["compute"], **compute}}))
        return path

    return write


def test_what_is_not_known_is_traced_once_and_then_found_by_the_plan(recipe, capsys):
    path = recipe()
    before = recipe_estimate(load_recipe(path), "results/own")
    assert len(before.unknown) == 3  # training, boxes, masks
    assert "own_detector, not traced yet" in one_line(before)
    main(parser.parse_args(["--recipe", str(path)]))
    told = capsys.readouterr()
    assert told.err.count("tracing own_detector") == 3
    assert "LVIS fine-tuning: own_detector" in told.out
    assert "V100 h" in told.out
    assert Path("results/traces.json").is_file()
    assert "not traced" not in one_line(recipe_estimate(load_recipe(path), "results/own"))
    main(parser.parse_args(["--recipe", str(path)]))
    assert "tracing" not in capsys.readouterr().err
    with pytest.raises(UserError, match="own_detector"):
        main(parser.parse_args(["--recipe", str(recipe(gpu_memory_gb=0.5))]))
